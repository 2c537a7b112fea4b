"""Inventory: machines.yaml as values. What is wrong is told with the file, the line and the key.

    cluster: {store: etcd}
    defaults: {ssh: {user: root, jump: bastion}}
    groups:
      rack1: {labels: {rack: "1"}}
    hosts:
      - {name: n1, address: 10.0.0.1, role: manager, groups: [rack1]}
      - {name: n2, address: 10.0.0.2, ssh: {port: 2222}}

A host with a driver is made by it, of its options, and has no address until then:

      - {name: n3, driver: local, options: {memory: 2g}}

A host has what it says itself, else what the last of its groups says, else the defaults; labels and ssh options are
merged key by key. Scalars are texts here, so YAML's guesses (`no`, `12:30`) change nothing.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

import yaml

from machine.model import Inventory, Machine, Order, Role, Ssh
from shoal.errors import InvalidArgument

T = TypeVar("T")
_STORES = ("sqlite", "etcd")
_HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*", re.ASCII | re.I)
_MACHINE_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}", re.ASCII)
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}", re.ASCII)
_MAX_BYTES = 4 << 20
# Drivers of hosts that exist; the second is docker-machine's word.
EXISTING = ("ssh", "generic")


class Value(NamedTuple):
    """A node of the document with where it stands: `key` is its path, like hosts[2].ssh.port."""

    file: str
    key: str
    node: yaml.Node

    def wrong(self, why: str, hint: str = "") -> InvalidArgument:
        line = self.node.start_mark.line + 1
        return InvalidArgument(f"{self.file}:{line}: {self.key or 'the document'} {why}", hint=hint)

    def text(self) -> str:
        if not isinstance(self.node, yaml.ScalarNode):
            raise self.wrong("is not a text")
        return str(self.node.value)

    def fields(self, known: tuple[str, ...] = ()) -> dict[str, Value]:
        """A mapping's values by key; with `known`, no others. A null is an empty mapping."""
        if isinstance(self.node, yaml.ScalarNode) and self.node.value in ("", "~", "null"):
            return {}
        if not isinstance(self.node, yaml.MappingNode):
            raise self.wrong("is not a mapping of keys to values")
        out: dict[str, Value] = {}
        for key_node, value_node in self.node.value:
            name = Value(self.file, self.key, key_node).text()
            value = Value(self.file, f"{self.key}.{name}".lstrip("."), value_node)
            if name in out:
                raise Value(self.file, value.key, key_node).wrong("is there twice")
            if known and name not in known:
                raise Value(self.file, value.key, key_node).wrong("is not known", f"known are {', '.join(known)}")
            out[name] = value
        return out

    def items(self) -> list[Value]:
        if not isinstance(self.node, yaml.SequenceNode):
            raise self.wrong("is not a list")
        return [Value(self.file, f"{self.key}[{at}]", node) for at, node in enumerate(self.node.value)]


class Settings(NamedTuple):
    """What defaults, groups and hosts may all say; absent is None, and left to whoever is asked next."""

    role: Role | None = None
    labels: Mapping[str, str] = {}
    user: str | None = None
    port: int | None = None
    identities: tuple[str, ...] | None = None
    jump: str | None = None

    def over(self, other: Settings) -> Settings:
        """These, and the other's where these say nothing."""
        said = {name: value for name, value in self._asdict().items() if value is not None}
        return other._replace(**{**said, "labels": {**other.labels, **self.labels}})


_COMMON = ("role", "labels", "ssh")
_OF_HOST = ("name", "address", "advertise", "groups", "driver", "options", *_COMMON)
# A driver makes no host that exists.
_OF_EXISTING = ("address", "ssh")
_SSH = ("user", "port", "identity", "jump")


def load(path: Path) -> Inventory:
    """Read a file. Raises InvalidArgument for one that cannot be read or says something that can never be right."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidArgument(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > _MAX_BYTES:
        raise InvalidArgument(f"{path} is larger than {_MAX_BYTES >> 20} MiB")
    return parse(data, str(path))


def parse(data: bytes, file: str) -> Inventory:
    """The same from bytes; `file` is named in errors."""
    try:
        text = data.decode()
        # An alias that stands for a tree that has aliases, and so on, would be walked for ever.
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text, Loader=yaml.SafeLoader)):
            raise InvalidArgument(f"{file} uses a YAML alias", hint="say what hosts share in defaults or groups")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"{file} is not UTF-8: {error.reason} at byte {error.start}") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InvalidArgument(f"{file}:{line}: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise InvalidArgument(f"{file}: {error}") from error
    if node is None:
        raise InvalidArgument(f"{file} is empty", hint="it needs a list called hosts")
    top = Value(file, "", node)
    fields = top.fields(("cluster", "defaults", "groups", "hosts"))
    if "hosts" not in fields:
        raise top.wrong("has no hosts", "it needs a list called hosts")
    defaults = _settings(fields["defaults"].fields(_COMMON)) if "defaults" in fields else Settings()
    groups = {
        name: _settings(value.fields(_COMMON))
        for name, value in (fields["groups"].fields() if "groups" in fields else {}).items()
    }
    machines = tuple(_machine(each, defaults, groups) for each in fields["hosts"].items())
    _check(fields["hosts"], machines)
    store = _store(fields["cluster"]) if "cluster" in fields else "sqlite"
    managers = sum(each.role is Role.MANAGER for each in machines)
    if store == "sqlite" and managers > 1:
        raise fields["hosts"].wrong(
            f"has {managers} managers, and sqlite is a store for one", "say cluster: {store: etcd}"
        )
    orders = {name: order for name, order in map(_order, fields["hosts"].items()) if order}
    return Inventory(machines, store, orders)


def _machine(value: Value, defaults: Settings, groups: Mapping[str, Settings]) -> Machine:
    fields = value.fields(_OF_HOST)
    for wanted in ("name",) if "driver" in fields else ("name", "address"):
        if wanted not in fields:
            raise value.wrong(f"has no {wanted}")
    settings = _settings(fields, more=("host_key",))
    named = fields["groups"].items() if "groups" in fields else []
    for group in reversed(named):
        if group.text() not in groups:
            raise group.wrong(f'names the group "{group.text()}", and there is none of that name')
        settings = settings.over(groups[group.text()])
    settings = settings.over(defaults)
    pinned = fields["ssh"].fields().get("host_key") if "ssh" in fields else None
    ssh = Ssh(
        user=settings.user or "",
        port=settings.port or 0,
        identities=settings.identities or (),
        jump=settings.jump or "",
        host_key=_checked(pinned, _check_fingerprint) if pinned else "",
    )
    return Machine(
        name=_checked(fields["name"], check_name),
        address=_checked(fields["address"], check_address) if "address" in fields else "",
        role=settings.role or Role.WORKER,
        labels=dict(settings.labels),
        advertise=_checked(fields["advertise"], check_address) if "advertise" in fields else "",
        ssh=ssh,
    )


def _order(value: Value) -> tuple[str, Order | None]:
    """By the machine's name; None for a host that exists."""
    fields = value.fields(_OF_HOST)
    name = fields["name"].text()
    if "driver" not in fields:
        if "options" in fields:
            raise fields["options"].wrong("is for hosts that a driver makes", "say driver: NAME as well")
        return name, None
    driver = _checked(fields["driver"], check_name)
    if driver in EXISTING:
        raise fields["driver"].wrong(f"is {driver}, which makes no host", "leave it out: a host with an address exists")
    for key in _OF_EXISTING:
        if key in fields:
            raise fields[key].wrong(f"is for driver {driver} to say")
    options = fields["options"].fields() if "options" in fields else {}
    return name, Order(driver, {key: each.text() for key, each in options.items()})


def _settings(fields: Mapping[str, Value], more: tuple[str, ...] = ()) -> Settings:
    ssh = fields["ssh"].fields((*_SSH, *more)) if "ssh" in fields else {}
    labels = fields["labels"].fields() if "labels" in fields else {}
    return Settings(
        role=_maybe(fields.get("role"), _role),
        labels={key: value.text() for key, value in labels.items()},
        user=_maybe(ssh.get("user"), Value.text),
        port=_maybe(ssh.get("port"), _port),
        identities=_maybe(ssh.get("identity"), _texts),
        jump=_maybe(ssh.get("jump"), Value.text),
    )


def _maybe(value: Value | None, read: Callable[[Value], T]) -> T | None:
    return None if value is None else read(value)


def _role(value: Value) -> Role:
    try:
        return Role(value.text())
    except ValueError:
        raise value.wrong(f'is "{value.text()}"', "a role is worker or manager") from None


def _port(value: Value) -> int:
    text = value.text()
    if not (text.isascii() and text.isdigit() and len(text) < 6 and 0 < int(text) < 65536):
        raise value.wrong(f'is "{text}"', "a port is a number from 1 to 65535")
    return int(text)


def _texts(value: Value) -> tuple[str, ...]:
    """One text, or a list of them."""
    if isinstance(value.node, yaml.SequenceNode):
        return tuple(each.text() for each in value.items())
    return (value.text(),)


def _store(value: Value) -> str:
    store = value.fields(("store",)).get("store")
    if store is None:
        return "sqlite"
    if store.text() not in _STORES:
        raise store.wrong(f'is "{store.text()}"', f"a store is {' or '.join(_STORES)}")
    return store.text()


def check_address(text: str) -> str:
    """An IP address or a host's name; nothing that a program could take for an option. Raises InvalidArgument."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        if _HOST_NAME.fullmatch(text):
            return text
    raise InvalidArgument(f'is "{text}", which is no address', hint="it should be an IP or a host's name")


def check_name(text: str) -> str:
    """A machine's name. Raises InvalidArgument."""
    if _MACHINE_NAME.fullmatch(text):
        return text
    raise InvalidArgument(
        f'is "{text}", which is no name', hint="it should be letters, digits, and _.- behind the first"
    )


def _checked(value: Value, check: Callable[[str], str]) -> str:
    try:
        return check(value.text())
    except InvalidArgument as error:
        raise value.wrong(error.message, error.hint) from None


def _check_fingerprint(text: str) -> str:
    if _FINGERPRINT.fullmatch(text):
        return text
    raise InvalidArgument(f'is "{text}", which is no fingerprint', hint="it looks like SHA256:…")


def _check(hosts: Value, machines: tuple[Machine, ...]) -> None:
    """What only all hosts together show."""
    if not any(each.role is Role.MANAGER for each in machines):
        raise hosts.wrong("has no manager", "give one host role: manager")
    for said in (_names, _ways):
        seen: dict[str, int] = {}
        for at, text in enumerate(said(machines)):
            if text in seen:
                raise hosts.items()[at].wrong(f"is {text}, as hosts[{seen[text]}] is already")
            seen[text] = at


def _names(machines: tuple[Machine, ...]) -> Iterator[str]:
    return (each.name for each in machines)


def _ways(machines: tuple[Machine, ...]) -> Iterator[str]:
    for each in machines:
        if each.address:
            yield f"{each.address} port {each.ssh.port or 22} by way of {each.ssh.jump or 'nobody'}"
        else:
            yield f"the host of {each.name}"
