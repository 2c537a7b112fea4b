"""Encode: changes of assignments as bytes, made once however many sessions carry them.

A message of protobuf is the sum of its parts, one after the other (protobuf.dev/programming-guides/encoding): a
session puts its own head before parts that it shares with others, and nothing is copied field by field.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import msgspec

from shoal.codec import to_wire
from shoal.model.assignment import AssignedBackend, AssignedPeer, AssignedTask, NetworkAssignment, Template
from shoal.model.network import Endpoint
from shoal.v1 import dispatcher_pb2 as wire
from shoal.v1 import types_pb2

# Changes in a part, and bytes in a part or a message; only a change that is longer itself exceeds it.
AT_MOST = 200
MESSAGE_BYTES = 256 << 10

Item: TypeAlias = Template | NetworkAssignment | AssignedPeer | Endpoint | AssignedBackend | AssignedTask

_WIRE: dict[type[Any], tuple[str, type[Any]]] = {
    Template: ("template", wire.Template),
    AssignedTask: ("task", wire.AssignedTask),
    NetworkAssignment: ("network", wire.NetworkAssignment),
    AssignedPeer: ("peer", wire.AssignedPeer),
    AssignedBackend: ("backend", wire.AssignedBackend),
    Endpoint: ("endpoint", types_pb2.Endpoint),
}


class Change(msgspec.Struct, frozen=True):
    """`item` is new or different; with `remove` it holds no more than what it is known by."""

    item: Item
    remove: bool = False


def encoded(changes: Sequence[Change]) -> list[bytes]:
    """Parts of messages, in the order of `changes`."""
    parts: list[bytes] = []
    part = wire.Assignments()
    size = 0
    for change in map(_on_wire, changes):
        length = change.ByteSize()
        if part.changes and (len(part.changes) == AT_MOST or size + length > MESSAGE_BYTES):
            parts.append(_bytes(part))
            part, size = wire.Assignments(), 0
        part.changes.append(change)
        size += length
    return [*parts, _bytes(part)] if part.changes else parts


def head(sequence: int, *, complete: bool, more: bool, confirm: bool) -> bytes:
    """The beginning of a message; the changes follow."""
    return _bytes(wire.Assignments(complete=complete, more=more, sequence=sequence, confirm=confirm))


def messages(parts: Iterable[bytes]) -> list[list[bytes]]:
    """`parts` by the messages that they go out in."""
    found: list[list[bytes]] = []
    room = 0
    for part in parts:
        if len(part) > room:
            found.append([])
            room = MESSAGE_BYTES
        found[-1].append(part)
        room -= len(part)
    return found


def _bytes(assignments: wire.Assignments) -> bytes:
    return wire.SessionResponse(assignments=assignments).SerializeToString()


def _on_wire(change: Change) -> wire.AssignmentChange:
    field, message = _WIRE[type(change.item)]
    item: dict[str, Any] = {field: to_wire(change.item, message)}
    return wire.AssignmentChange(remove=change.remove, **item)
