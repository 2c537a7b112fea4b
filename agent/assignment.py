"""Assignment: what this node was told to do, built from a manager's messages. Pure.

`manager/dispatcher/assignment.py` computes the same on the other side; `agent/database.py` keeps it. A change is
also what the database writes: an item by kind and key, or its removal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import msgspec

from shoal.codec import from_wire
from shoal.errors import InvalidArgument
from shoal.model.assignment import (
    AssignedBackend,
    AssignedPeer,
    AssignedTask,
    NetworkAssignment,
    NetworkPeer,
    Template,
)
from shoal.model.base import Value
from shoal.model.network import Backend, Endpoint
from shoal.v1 import dispatcher_pb2

Mesh: TypeAlias = tuple[tuple[NetworkAssignment, ...], tuple[Endpoint, ...]]
KINDS: dict[str, type[Value]] = {
    "template": Template,
    "task": AssignedTask,
    "network": NetworkAssignment,
    "endpoint": Endpoint,
    "peer": AssignedPeer,
    "backend": AssignedBackend,
}


class Change(msgspec.Struct, frozen=True):
    """One item that is new or different; `value` None: it is no longer assigned."""

    kind: str
    key: str
    value: Value | None


class Assignment(msgspec.Struct, frozen=True):
    """All that is assigned, by key. Every task's template is among the templates. Networks come without their peers
    and endpoints without their backends: `mesh` puts them together."""

    templates: Mapping[str, Template] = {}
    tasks: Mapping[str, AssignedTask] = {}
    networks: Mapping[str, NetworkAssignment] = {}
    endpoints: Mapping[str, Endpoint] = {}
    peers: Mapping[str, AssignedPeer] = {}
    backends: Mapping[str, AssignedBackend] = {}

    def template_of(self, task: AssignedTask) -> Template:
        """Raises InvalidArgument where the manager never sent it."""
        template = self.templates.get(template_key(task.service_id, task.task_version))
        if template is None:
            raise InvalidArgument(
                f"task {task.task_id} was assigned without version {task.task_version} of service {task.service_id}"
            )
        return template

    def items(self) -> Iterable[Change]:
        """Everything as changes from nothing."""
        for kind, values in zip(KINDS, self._parts(), strict=True):
            for key, value in values.items():
                yield Change(kind, key, value)

    def reaches_as(self, other: Assignment) -> bool:
        """Whether `mesh` is the same for both."""
        return (self.networks, self.endpoints, self.peers, self.backends) == (
            other.networks,
            other.endpoints,
            other.peers,
            other.backends,
        )

    def mesh(self) -> Mesh:
        """The networks with the other nodes' parts, the endpoints with who answers, in an order of their own."""
        peers: dict[str, list[NetworkPeer]] = {}
        for part in self.peers.values():
            peers.setdefault(part.network_id, []).append(part.peer)
        backends: dict[tuple[str, str], list[Backend]] = {}
        for answer in self.backends.values():
            backends.setdefault((answer.service_id, answer.network_id), []).append(answer.backend)
        networks = tuple(_joined(each, peers.get(each.network.meta.id, ())) for each in self.networks.values())
        endpoints = tuple(
            _answered(each, backends.get((each.service_id, each.network_id), ())) for each in self.endpoints.values()
        )
        return networks, endpoints

    def _parts(self) -> tuple[Mapping[str, Value], ...]:
        """In the order of KINDS."""
        return self.templates, self.tasks, self.networks, self.endpoints, self.peers, self.backends


def template_key(service_id: str, task_version: int) -> str:
    return f"{service_id}.{task_version}"


def changes_in(message: dispatcher_pb2.Assignments) -> list[Change]:
    """The changes of one message, as values. Raises InvalidArgument for an empty one."""
    return [_change(each) for each in message.changes]


def changed(assignment: Assignment, changes: Iterable[Change]) -> Assignment:
    """`assignment` after `changes`, in their order. Raises InvalidArgument for a task left without template."""
    parts: dict[str, dict[str, Any]] = dict(zip(KINDS, map(dict, assignment._parts()), strict=True))
    for change in changes:
        if change.value is None:
            parts[change.kind].pop(change.key, None)
        else:
            parts[change.kind][change.key] = change.value
    after = Assignment(*parts.values())
    for task in after.tasks.values():
        after.template_of(task)
    return after


def _change(message: dispatcher_pb2.AssignmentChange) -> Change:
    kind = message.WhichOneof("item")
    if kind is None:
        raise InvalidArgument("the manager sent an assignment of a kind that this program does not know")
    value = from_wire(getattr(message, kind), KINDS[kind])
    return Change(kind, _KEYS[kind](value), None if message.remove else value)


_KEYS: dict[str, Callable[[Any], str]] = {
    "template": lambda value: template_key(value.service_id, value.task_version),
    "task": lambda value: str(value.task_id),
    "network": lambda value: str(value.network.meta.id),
    "endpoint": lambda value: f"{value.service_id}.{value.network_id}",
    "peer": lambda value: f"{value.network_id}.{value.peer.node_id}",
    "backend": lambda value: f"{value.service_id}.{value.network_id}.{value.backend.task_id}",
}


def _joined(network: NetworkAssignment, peers: Iterable[NetworkPeer]) -> NetworkAssignment:
    others = sorted((each for each in peers if each.block != network.block), key=lambda peer: peer.node_id)
    return msgspec.structs.replace(network, peers=tuple(others))


def _answered(endpoint: Endpoint, backends: Iterable[Backend]) -> Endpoint:
    return msgspec.structs.replace(
        endpoint, backends=tuple(sorted(backends, key=lambda backend: (backend.slot, backend.task_id)))
    )
