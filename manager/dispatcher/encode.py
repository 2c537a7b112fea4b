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

# Changes in a part, and bytes in a message, which a part may exceed: far below gRPC's bound.
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
    return [_part(changes[begin : begin + AT_MOST]) for begin in range(0, len(changes), AT_MOST)]


def head(sequence: int, *, complete: bool, more: bool) -> bytes:
    """The beginning of a message; the changes follow."""
    assignments = wire.Assignments(complete=complete, more=more, sequence=sequence)
    return wire.SessionResponse(assignments=assignments).SerializeToString()


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


def _part(changes: Sequence[Change]) -> bytes:
    return wire.SessionResponse(assignments=wire.Assignments(changes=map(_on_wire, changes))).SerializeToString()


def _on_wire(change: Change) -> wire.AssignmentChange:
    field, message = _WIRE[type(change.item)]
    item: dict[str, Any] = {field: to_wire(change.item, message)}
    return wire.AssignmentChange(remove=change.remove, **item)
