"""View: all records in memory, decoded and indexed, as of one revision. What every decision reads.

The values are frozen; only `put` and `remove` change the view, and only the mirror (or a test) calls them. A
decision that keeps a view across an `await` sees it move.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, TypeVar, cast

from manager.store.presence import Presence
from manager.store.records import KINDS, Noun, kind_of
from shoal.model.cluster import Cluster
from shoal.model.login import Login
from shoal.model.network import Lease, Network
from shoal.model.node import Node
from shoal.model.service import Service
from shoal.model.task import Task, TaskState
from shoal.model.token import Token
from shoal.model.trust import Revocation
from shoal.model.user import User

N = TypeVar("N", Service, Node, Network)


class Follower(Protocol):
    """What is computed from a view and kept current with it, because computing it anew takes too long."""

    def changed(self, old: Noun | None, new: Noun | None) -> None:
        """The view holds `new` instead of `old` now. Must not change the view."""


F = TypeVar("F", bound=Follower)


class View:
    """Mappings by id, and the indexes. Collections returned are copies and stay as they are."""

    def __init__(self, values: Iterable[Noun] = ()) -> None:
        self.revision = 0
        self._records: dict[str, dict[str, Noun]] = {kind: {} for kind in KINDS}
        self._by_service: dict[str, dict[str, Task]] = {}
        self._by_node: dict[str, dict[str, Task]] = {}
        self._unassigned: dict[str, Task] = {}
        self._new: dict[str, Task] = {}
        self._leases_by_network: dict[str, dict[str, Lease]] = {}
        self._leases_by_node: dict[str, dict[str, Lease]] = {}
        self._names: dict[str, dict[str, dict[str, None]]] = {"service": {}, "node": {}, "network": {}}
        self._followers: dict[Any, Follower] = {}
        for value in values:
            self.put(value)

    @property
    def nodes(self) -> Mapping[str, Node]:
        return cast("dict[str, Node]", self._records["node"])

    @property
    def services(self) -> Mapping[str, Service]:
        return cast("dict[str, Service]", self._records["service"])

    @property
    def tasks(self) -> Mapping[str, Task]:
        return cast("dict[str, Task]", self._records["task"])

    @property
    def networks(self) -> Mapping[str, Network]:
        return cast("dict[str, Network]", self._records["network"])

    @property
    def leases(self) -> Mapping[str, Lease]:
        return cast("dict[str, Lease]", self._records["lease"])

    @property
    def managers(self) -> Mapping[str, Presence]:
        """The managers that serve, by their nodes' ids."""
        return cast("dict[str, Presence]", self._records["manager"])

    @property
    def revocations(self) -> Mapping[str, Revocation]:
        """By the id of the node that was removed."""
        return cast("dict[str, Revocation]", self._records["revocation"])

    @property
    def tokens(self) -> Mapping[str, Token]:
        return cast("dict[str, Token]", self._records["token"])

    @property
    def users(self) -> Mapping[str, User]:
        """By name."""
        return cast("dict[str, User]", self._records["user"])

    @property
    def logins(self) -> Mapping[str, Login]:
        """By the service's id."""
        return cast("dict[str, Login]", self._records["login"])

    @property
    def cluster(self) -> Cluster | None:
        """The one there is; None before the cluster was made."""
        return cast("Cluster | None", next(iter(self._records["cluster"].values()), None))

    def get(self, kind: str, id: str) -> Noun | None:
        return self._records[kind].get(id)

    def all(self, kind: str) -> Mapping[str, Noun]:
        return self._records[kind]

    def tasks_of_service(self, service_id: str) -> tuple[Task, ...]:
        return tuple(self._by_service.get(service_id, {}).values())

    def tasks_of_node(self, node_id: str) -> tuple[Task, ...]:
        """Those that the scheduler has sent there."""
        return tuple(self._by_node.get(node_id, {}).values())

    def tasks_unassigned(self) -> tuple[Task, ...]:
        """Those that the scheduler has not sent to a node yet."""
        return tuple(self._unassigned.values())

    def tasks_new(self) -> tuple[Task, ...]:
        """Those of them that the allocator has not seen to yet."""
        return tuple(self._new.values())

    def services_with_tasks(self) -> tuple[str, ...]:
        """Ids of all services that have tasks, also of services that are gone."""
        return tuple(self._by_service)

    def services_gone(self) -> set[str]:
        """Ids of services that have tasks but no record any more."""
        return self._by_service.keys() - self._records["service"].keys()

    def leases_of_network(self, network_id: str) -> tuple[Lease, ...]:
        return tuple(self._leases_by_network.get(network_id, {}).values())

    def leases_of_node(self, node_id: str) -> tuple[Lease, ...]:
        return tuple(self._leases_by_node.get(node_id, {}).values())

    def service_named(self, name: str) -> Service | None:
        return self._named("service", name, self.services)

    def node_named(self, hostname: str) -> Node | None:
        """The node with this hostname; of several, the one that was first."""
        return self._named("node", hostname, self.nodes)

    def network_named(self, name: str) -> Network | None:
        return self._named("network", name, self.networks)

    def network(self, reference: str) -> Network | None:
        """By id, or else by name."""
        return self.networks.get(reference) or self.network_named(reference)

    def follower(self, make: Callable[[View], F]) -> F:
        """The one that `make` makes of this view: made when it is first asked for, told of every change since."""
        known = self._followers.get(make)
        if known is None:
            known = self._followers[make] = make(self)
        return cast("F", known)

    def put(self, value: Noun) -> Noun | None:
        """Hold `value` instead of the one with its id, which is returned."""
        kind = kind_of(value)
        old = self._records[kind].get(value.meta.id)
        self._reindex(old, value)
        self._records[kind][value.meta.id] = value
        for follower in self._followers.values():
            follower.changed(old, value)
        return old

    def remove(self, kind: str, id: str) -> Noun | None:
        old = self._records[kind].pop(id, None)
        self._reindex(old, None)
        if old is not None:
            for follower in self._followers.values():
                follower.changed(old, None)
        return old

    def _named(self, kind: str, name: str, records: Mapping[str, N]) -> N | None:
        ids = self._names[kind].get(name)
        return records[next(iter(ids))] if ids else None

    def _reindex(self, old: Noun | None, new: Noun | None) -> None:
        match new or old:
            case Task(meta=meta):
                before, after = cast("Task | None", old), cast("Task | None", new)
                _move(self._by_service, meta.id, before, after, "service_id")
                _move(self._by_node, meta.id, _sent(before), _sent(after), "node_id")
                if after is not None and after.status.state < TaskState.ASSIGNED:
                    self._unassigned[meta.id] = after
                else:
                    self._unassigned.pop(meta.id, None)
                if after is not None and after.status.state == TaskState.NEW:
                    self._new[meta.id] = after
                else:
                    self._new.pop(meta.id, None)
            case Lease(meta=meta):
                was, now = cast("Lease | None", old), cast("Lease | None", new)
                _move(self._leases_by_network, meta.id, was, now, "network_id")
                _move(self._leases_by_node, meta.id, was, now, "node_id")
            case Service() | Node() | Network():
                self._rename(old, new)
            case _:
                pass

    def _rename(self, old: Noun | None, new: Noun | None) -> None:
        before = _name_of(old) if old is not None else ""
        after = _name_of(new) if new is not None else ""
        if before == after:
            return
        value = cast("Noun", new or old)
        names = self._names[kind_of(value)]
        if before and (ids := names.get(before)):
            ids.pop(value.meta.id, None)
            if not ids:
                del names[before]
        if after:
            names.setdefault(after, {})[value.meta.id] = None


T = TypeVar("T")


def _move(index: dict[str, dict[str, T]], id: str, old: T | None, new: T | None, field: str) -> None:
    """File `new` under its `field` (empty: nowhere) instead of `old` under its own."""
    before: str = getattr(old, field, "")
    after: str = getattr(new, field, "")
    if before and before != after and (filed := index.get(before)):
        filed.pop(id, None)
        if not filed:
            del index[before]
    if after and new is not None:
        index.setdefault(after, {})[id] = new


def _sent(task: Task | None) -> Task | None:
    """A global service's task knows its node before it is sent there."""
    return task if task is not None and task.status.state >= TaskState.ASSIGNED else None


def _name_of(value: Noun) -> str:
    match value:
        case Service(spec=service):
            return service.name
        case Node(description=description):
            return description.hostname
        case Network(spec=network):
            return network.name
        case _:
            return ""
