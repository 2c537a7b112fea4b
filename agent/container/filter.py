"""`ps --filter key=value`: docker's filters over containers. Pure; values of one key are alternatives, keys add up.

What an image or another container in a filter means is resolved by the caller (`Known`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from shoal.errors import InvalidArgument
from shoal.model.container import Container, ContainerState, MountType
from shoal.model.health import HealthState
from shoal.model.network import Port

_HEALTH = tuple(each.name.lower() for each in HealthState)
_STATES = {each.name.lower(): each for each in ContainerState}


class Known(msgspec.Struct, frozen=True):
    """What filter values stand for: an `ancestor` the ids of the images that have it below them, a `before` or
    `since` the time its container was created."""

    ancestors: Mapping[str, frozenset[str]] = {}
    created_at_ns: Mapping[str, int] = {}


Test = Callable[[Container, str], bool]
NOTHING = Known()


def selected(
    containers: Iterable[Container], filters: Sequence[tuple[str, str]], known: Known = NOTHING
) -> list[Container]:
    """Those that match, in their order. Raises InvalidArgument for a filter that is not one."""
    wanted: dict[str, list[str]] = {}
    for key, value in filters:
        check_filter(key, value)
        wanted.setdefault(key, []).append(value)
    return [
        each
        for each in containers
        if all(
            (all if key == "label" else any)(_matches(each, key, value, known) for value in values)
            for key, values in wanted.items()
        )
    ]


def check_filter(key: str, value: str) -> None:
    """Raises InvalidArgument."""
    if key not in _TESTS and key not in _RELATIVE:
        raise InvalidArgument(f"invalid filter '{key}'", hint=f"there are: {', '.join(sorted((*_TESTS, *_RELATIVE)))}")
    if key == "status" and value not in {*_STATES, "removing"}:
        raise InvalidArgument(f"invalid value '{value}' for filter 'status'", hint=f"one of {', '.join(_STATES)}")
    if key == "exited" and not value.lstrip("-").isdigit():
        raise InvalidArgument(f"invalid value '{value}' for filter 'exited'", hint="give an exit code")
    if key == "is-task" and value.lower() not in ("true", "false", "1", "0"):
        raise InvalidArgument(f"invalid value '{value}' for filter 'is-task'", hint="true or false")
    if key == "health" and value not in _HEALTH:
        raise InvalidArgument(f"invalid value '{value}' for filter 'health'", hint=f"one of {', '.join(_HEALTH)}")
    if key in ("publish", "expose"):
        _range(value)


def shows_stopped(filters: Sequence[tuple[str, str]]) -> bool:
    """Whether a filter asks for containers that do not run, so that `-a` is implied."""
    return any(key in ("status", "exited") for key, _ in filters)


def _name(container: Container, value: str) -> bool:
    try:
        return re.search(value, f"/{container.name}") is not None or re.search(value, container.name) is not None
    except re.error:
        return value in container.name


def has_label(labels: Mapping[str, str], value: str) -> bool:
    """`value` is "name" or "name=text"."""
    name, equals, text = value.partition("=")
    return name in labels and (not equals or labels[name] == text)


def _exited(container: Container, value: str) -> bool:
    ended = container.status.state in (ContainerState.EXITED, ContainerState.DEAD)
    return ended and container.status.exit_code == int(value)


def _volume(container: Container, value: str) -> bool:
    return any(
        value == each.target or (value == each.source and each.type in (MountType.VOLUME, MountType.BIND))
        for each in container.mounts
    )


def _network(container: Container, value: str) -> bool:
    return any(each.network == value for each in container.networks) or any(
        value == each.network_name or each.network_id.startswith(value) for each in container.status.addresses
    )


def _publish(container: Container, value: str) -> bool:
    return _has_port(container.status.ports or container.ports, value, lambda port: port.published)


def _expose(container: Container, value: str) -> bool:
    return _has_port(container.ports, value, lambda port: port.target)


def _has_port(ports: Iterable[Port], value: str, number: Callable[[Port], int]) -> bool:
    first, last, protocol = _range(value)
    return any(first <= number(each) <= last and each.protocol.name.lower() == protocol for each in ports)


def _range(value: str) -> tuple[int, int, str]:
    numbers, _, protocol = value.partition("/")
    first, _, last = numbers.partition("-")
    if not first.isdigit() or (last and not last.isdigit()):
        raise InvalidArgument(f"invalid port filter '{value}'", hint="give 80, 80/udp or 8000-8010/tcp")
    return int(first), int(last or first), protocol or "tcp"


_TESTS: dict[str, Test] = {
    "id": lambda container, value: container.meta.id.startswith(value),
    "name": _name,
    "label": lambda container, value: has_label(container.spec.labels, value),
    "status": lambda container, value: container.status.state == _STATES.get(value),
    "exited": _exited,
    "volume": _volume,
    "network": _network,
    "publish": _publish,
    "expose": _expose,
    "health": lambda container, value: container.status.health.state.name.lower() == value,
    "is-task": lambda container, value: bool(container.task_id) == (value.lower() in ("true", "1")),
}
_RELATIVE = ("ancestor", "before", "since")


def _matches(container: Container, key: str, value: str, known: Known) -> bool:
    match key:
        case "ancestor":
            return container.image_id in known.ancestors.get(value, frozenset())
        case "before":
            return container.meta.created_at_ns < known.created_at_ns[value]
        case "since":
            return container.meta.created_at_ns > known.created_at_ns[value]
        case _:
            return _TESTS[key](container, value)
