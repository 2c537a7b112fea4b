"""Placeholders: what stands in a service's spec for something that differs from task to task. Pure.

Docker's names, in the hostname, the environment and the sources of mounts: `{{.Node.Hostname}}`, `{{.Task.Slot}}`,
`{{index .Service.Labels "key"}}`… Anything else between double braces is refused, not passed on: by the manager when
the service is made, and by the agent, which fills them in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from shoal.errors import InvalidArgument
from shoal.model.container import ContainerSpec

_PLACEHOLDER = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_LABEL = re.compile(r'index\s+\.Service\.Labels\s+"([^"]*)"')


NAMES = (
    "Node.ID",
    "Node.Hostname",
    "Node.Platform.OS",
    "Node.Platform.Architecture",
    "Service.ID",
    "Service.Name",
    "Task.ID",
    "Task.Name",
    "Task.Slot",
)


class Facts(msgspec.Struct, frozen=True):
    """`values` by docker's names without the dot in front ("Node.ID")."""

    values: Mapping[str, str]
    labels: Mapping[str, str]


def check(spec: ContainerSpec) -> None:
    """Raises InvalidArgument for a placeholder that no agent could fill in."""
    filled(spec, Facts(dict.fromkeys(NAMES, "x"), {}))


def filled(spec: ContainerSpec, facts: Facts) -> ContainerSpec:
    """`spec` with every placeholder replaced. Raises InvalidArgument for one that is unknown."""
    return msgspec.structs.replace(
        spec,
        hostname=fill(spec.hostname, facts),
        env=tuple(fill(each, facts) for each in spec.env),
        mounts=tuple(msgspec.structs.replace(each, source=fill(each.source, facts)) for each in spec.mounts),
    )


def fill(text: str, facts: Facts) -> str:
    """`text` with every placeholder replaced. Raises InvalidArgument for one that is unknown."""
    if "{{" in _PLACEHOLDER.sub("", text):
        raise InvalidArgument(f"the placeholder in {text!r} has no end", hint="write it as {{.Node.Hostname}}")
    return _PLACEHOLDER.sub(lambda found: _value(found[1].strip(), text, facts), text)


def _value(wanted: str, text: str, facts: Facts) -> str:
    if label := _LABEL.fullmatch(wanted):
        return facts.labels.get(label[1], "")
    name = wanted.removeprefix(".")
    if wanted.startswith(".") and name in facts.values:
        return facts.values[name]
    raise InvalidArgument(
        f"unknown placeholder {{{{{wanted}}}}} in {text!r}",
        hint=f"known are {', '.join('.' + each for each in sorted(facts.values))}",
    )
