"""Event: something that happened to a container, an image, a volume or a network of one host."""

from __future__ import annotations

import enum
from collections.abc import Callable

from shoal.model.base import Value


class EventKind(enum.IntEnum):
    CONTAINER = 1
    IMAGE = 2
    VOLUME = 3
    NETWORK = 4


class Event(Value, frozen=True):
    """`action` is docker's word ("die", "exec_start: sh"); `id` who it happened to; `attributes` what is known of it
    besides: a name, an exit code, the labels."""

    kind: EventKind = EventKind.CONTAINER
    action: str = ""
    id: str = ""
    attributes: dict[str, str] = {}
    at_ns: int = 0


# Takes an event that has just happened; when, it sees for itself.
Tell = Callable[[Event], None]


def to_nobody(_: Event) -> None:
    """For who has nobody to tell."""
