"""Constraint: a condition on nodes, "node.labels.zone==b", as swarm writes it.

The scheduler places by it, the orchestrator evicts by it, and the API refuses what does not parse. Keys are
node.id, node.hostname, node.ip (an address or a subnet), node.role, node.platform.os, node.platform.arch,
node.labels.X and engine.labels.X; values compare without regard to case, and a label that is missing is empty.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Iterable

import msgspec

from shoal.errors import InvalidArgument
from shoal.model.node import Node

_SHAPE = re.compile(r"\s*([A-Za-z0-9._/-]+?)\s*(==|!=)\s*(\S(?:.*\S)?)\s*")
_KEYS = (
    "node.id", "node.hostname", "node.ip", "node.role", "node.platform.os", "node.platform.arch",
    "node.labels.NAME", "engine.labels.NAME",
)  # fmt: skip
_ARCHITECTURES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386", "i686": "386"}


class Constraint(msgspec.Struct, frozen=True):
    """`key` as written; `value` in small letters."""

    key: str
    equal: bool
    value: str

    def holds(self, node: Node) -> bool:
        return self.allows(found(self.key, node))

    def allows(self, text: str) -> bool:
        """Whether it holds on a node that has `text` at its key."""
        if self.key == "node.ip":
            return _within(text, self.value) is self.equal
        return (text.lower() == self.value) is self.equal


@functools.lru_cache(maxsize=4096)
def parse(text: str) -> Constraint:
    """Raises InvalidArgument for a key, an operator or an address that means nothing."""
    shape = _SHAPE.fullmatch(text)
    if shape is None:
        raise InvalidArgument(f"constraint {text!r} is not KEY==VALUE or KEY!=VALUE")
    key, operator, value = shape.groups()
    known = key in _KEYS[:6] or any(
        key.startswith(prefix) and key != prefix for prefix in ("node.labels.", "engine.labels.")
    )
    if not known:
        raise InvalidArgument(f"constraint {text!r}: unknown key {key}", hint=f"the keys are {', '.join(_KEYS)}")
    value = value.lower()
    if key == "node.platform.arch":
        value = _ARCHITECTURES.get(value, value)
    if key == "node.ip":
        _check_address(text, value)
    return Constraint(key, operator == "==", value)


def hold(constraints: Iterable[str], node: Node) -> bool:
    """Whether all of them hold on `node`."""
    return all(parse(each).holds(node) for each in constraints)


def found(key: str, node: Node) -> str:
    """What a node has at a key that a constraint or a placement preference may name."""
    about = node.description
    if key.startswith("node.labels."):
        return node.spec.labels.get(key.removeprefix("node.labels."), "")
    if key.startswith("engine.labels."):
        return about.engine_labels.get(key.removeprefix("engine.labels."), "")
    match key:
        case "node.id":
            return node.meta.id
        case "node.hostname":
            return about.hostname
        case "node.ip":
            return about.address
        case "node.role":
            return node.spec.role.name
        case "node.platform.os":
            return about.os
        case "node.platform.arch":
            return _ARCHITECTURES.get(about.architecture.lower(), about.architecture)
        case _:
            return ""


def _check_address(text: str, value: str) -> None:
    try:
        ipaddress.ip_network(value, strict=False)
    except ValueError as error:
        raise InvalidArgument(f"constraint {text!r}: {value} is no address and no subnet") from error


def _within(address: str, subnet: str) -> bool:
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(subnet, strict=False)
    except ValueError:
        return False  # a node that has not said where it is
