"""Load: what each node carries, in columns that follow the view. `Draft` is a copy to place tasks on.

A node is its place in these columns. What a task reserves is held until it has ended; what counts for spreading is
what is to run. All of it is a function of the view: one made from scratch says the same.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import cast

import msgspec
import numpy as np

from manager.control.attachment import Attached
from manager.control.constraint import parse
from manager.scheduler.candidates import Candidates
from manager.scheduler.demand import NOTHING_HELD, Holding, HostPort, amounts, holdings
from manager.scheduler.labels import Column, Labels, Mask
from manager.scheduler.overlay import Overlay, Usage, prefix_of
from manager.store.records import Noun
from manager.store.view import View
from shoal.model.base import Resources
from shoal.model.network import Lease, Network
from shoal.model.node import Availability, Node, NodeState
from shoal.model.service import Service
from shoal.model.task import Task, TaskState

RESOURCES = ("CPU", "memory", "pids")
_UNLIMITED = 1 << 62
_FAILED = frozenset({TaskState.FAILED, TaskState.REJECTED})
_SETS_KEPT = 1000


def available(node: Node) -> bool:
    return node.status.state == NodeState.READY and node.spec.availability == Availability.ACTIVE


class _Share(msgspec.Struct, frozen=True, gc=False):
    """What one task puts on its node."""

    place: int
    service_id: str
    version: int
    counts: bool
    reservations: Resources


class Load:
    """`freed` rises whenever a node may take what it could not take before, `changes` with every change. Nobody but
    the view changes it."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._attached = view.follower(Attached)
        self.places: dict[str, int] = {}
        self.nodes: list[Node | None] = []
        self.free = np.zeros((len(RESOURCES), 16), np.int64)
        self.total = np.zeros(16, np.int64)
        self.available = np.zeros(16, np.bool_)
        self.of_service: dict[str, dict[int, int]] = {}
        self.failed: dict[str, dict[str, Task]] = defaultdict(dict)
        self.host_ports: dict[HostPort, Counter[int]] = defaultdict(Counter)
        self.usages: dict[str, Usage] = defaultdict(Usage)
        self.freed = 0
        self.changes = 0
        self._holdings: dict[str, dict[int, Holding]] = {}
        self._labels: dict[str, Labels] = {}
        self._candidates: dict[tuple[tuple[str, ...], tuple[str, ...]], Candidates] = {}
        self._order: Column | None = None
        for service in view.services.values():
            self._know(service.meta.id, service)
        for kind in ("node", "service", "lease", "task"):
            for value in view.all(kind).values():
                self.changed(None, value)

    def changed(self, old: Noun | None, new: Noun | None) -> None:
        match new or old:
            case Task():
                self._task(cast("Task | None", old), cast("Task | None", new))
            case Node():
                self._node(cast("Node | None", old), cast("Node | None", new))
            case Service():
                self._service(cast("Service | None", old), cast("Service | None", new))
            case Lease():
                self._lease(cast("Lease | None", old), cast("Lease | None", new))
            case Network():
                self._network(cast("Network | None", old), cast("Network | None", new))
            case _:
                return

    def order(self) -> Column:
        """The places of all nodes, by their ids."""
        if self._order is None:
            known = sorted(id for id, place in self.places.items() if self.nodes[place] is not None)
            self._order = np.array([self.places[id] for id in known], np.int64)
        return self._order

    def meets(self, constraints: Sequence[str]) -> Mask:
        """Where all constraints hold, by place."""
        met = np.ones(len(self.total), np.bool_)
        for constraint in map(parse, constraints):
            met &= self._at(constraint.key).allowed(constraint)
        return met

    def candidates(self, constraints: tuple[str, ...], keys: tuple[str, ...]) -> Candidates:
        """The nodes that pass what no placement changes, in the branches of these spread keys."""
        found = self._candidates.get((constraints, keys))
        if found is None:
            order = self.order()
            places = order[(self.available & self.meets(constraints))[order]]
            found = Candidates(places, [self._at(key).numbers(places) for key in keys])
            if len(self._candidates) >= _SETS_KEPT:
                self._candidates.clear()
            self._candidates[constraints, keys] = found
        return found

    def overlay(self, id: str) -> Overlay:
        """What is left on an overlay, as seen from each node."""
        return Overlay(id, self._view.networks.get(id), self.usages.get(id, Usage()), len(self.total))

    def moved(self, old: Task | None, new: Task | None) -> bool:
        """Whether a node carries something else with `new` instead of `old`."""
        return self._share(old) != self._share(new)

    def _at(self, key: str) -> Labels:
        if key not in self._labels:
            self._labels[key] = Labels(key, len(self.total), self.nodes)
        return self._labels[key]

    def _place(self, node_id: str) -> int:
        """Given to a node when it is first heard of, if only from a task; it keeps it though its record may go."""
        place = self.places.get(node_id)
        if place is None:
            place = self.places[node_id] = len(self.nodes)
            self.nodes.append(None)
            if place == len(self.total):
                self.free = np.concatenate([self.free, np.zeros_like(self.free)], axis=1)
                self.total = np.concatenate([self.total, np.zeros_like(self.total)])
                self.available = np.concatenate([self.available, np.zeros_like(self.available)])
                self._labels.clear()
        return place

    def _node(self, old: Node | None, new: Node | None) -> None:
        value = cast("Node", new or old)
        place = self._place(value.meta.id)
        self.nodes[place] = new
        self.free[:, place] += _room(new) - _room(old)
        self.available[place] = new is not None and available(new)
        for labels in self._labels.values():
            labels.put(place, new)
        self._candidates.clear()
        if old is None or new is None:
            self._order = None
        self._rises(freed=new is not None)

    def _task(self, old: Task | None, new: Task | None) -> None:
        before, after = self._share(old), self._share(new)
        if before != after:
            if before is not None:
                self._put(before, -1)
            if after is not None:
                self._put(after, 1)
            self._rises(freed=before is not None)
        if new is not None and new.status.state in _FAILED:
            self.failed[new.service_id][new.meta.id] = new
        elif old is not None and old.status.state in _FAILED:
            del self.failed[old.service_id][old.meta.id]
            if not self.failed[old.service_id]:
                del self.failed[old.service_id]

    def _share(self, task: Task | None) -> _Share | None:
        if task is None or not task.node_id or not TaskState.ASSIGNED <= task.status.state <= TaskState.RUNNING:
            return None
        counts = task.desired <= TaskState.RUNNING and not task.depart_by_ns
        return _Share(self._place(task.node_id), task.service_id, task.task_version, counts, task.reservations)

    def _put(self, share: _Share, sign: int) -> None:
        if share.counts:
            self.total[share.place] += sign
            _add(self.of_service, share.service_id, share.place, sign)
        if share.reservations != _NOTHING:
            for row, amount in enumerate(amounts(share.reservations)):
                self.free[row, share.place] -= sign * amount
        self._hold(self._holding(share.service_id, share.version), share.place, sign)

    def _hold(self, held: Holding, place: int, sign: int) -> None:
        for port in held.host_ports:
            _count(self.host_ports[port], place, sign)
        for network in held.networks:
            _count(self.usages[network].used, place, sign)

    def _holding(self, service_id: str, version: int) -> Holding:
        """Of tasks of a service that is gone nobody knows what they hold."""
        return _held(self._holdings.get(service_id), version)

    def _service(self, old: Service | None, new: Service | None) -> None:
        if old is not None and new is not None and _alike(old, new):
            return
        for service, sign in ((old, -1), (new, 1)):
            for address in service.addresses if service else ():
                self.usages[address.network_id].addresses += sign
        self._hold_anew(cast("Service", new or old).meta.id, new)
        self._rises(freed=old is not None)

    def _hold_anew(self, service_id: str, service: Service | None) -> None:
        """What the tasks of a service hold may be something else now."""
        before = self._holdings.get(service_id)
        self._know(service_id, service)
        after = self._holdings.get(service_id)
        if before is None and after is None:
            return  # as of most
        for share in filter(None, map(self._share, self._view.tasks_of_service(service_id))):
            was, now = _held(before, share.version), _held(after, share.version)
            if now != was:
                self._hold(was, share.place, -1)
                self._hold(now, share.place, 1)

    def _know(self, service_id: str, service: Service | None) -> None:
        known = holdings(self._view, service) if service else {}
        if any(held != NOTHING_HELD for held in known.values()):
            self._holdings[service_id] = known
        else:
            self._holdings.pop(service_id, None)

    def _lease(self, old: Lease | None, new: Lease | None) -> None:
        if old is not None:
            self.usages[old.network_id].lease(self._place(old.node_id), None)
        if new is not None:
            self.usages[new.network_id].lease(self._place(new.node_id), prefix_of(new.block))
        self._rises(freed=True)

    def _network(self, old: Network | None, new: Network | None) -> None:
        """Which network a service's word means may be another one now."""
        if old is None or new is None or (old.spec.name, old.scope) != (new.spec.name, new.scope):
            for id in self._attached.to(old, new):
                self._hold_anew(id, self._view.services[id])
        self._rises(freed=True)

    def _rises(self, *, freed: bool) -> None:
        self.changes += 1
        self.freed += freed


_NOTHING = Resources()


def _held(known: dict[int, Holding] | None, version: int) -> Holding:
    """By one task of this version, of a service of which that much is known."""
    if not known:
        return NOTHING_HELD
    return known.get(version) or next(iter(known.values()))


def _alike(old: Service, new: Service) -> bool:
    """Whether both ask for the same: only more or less of it."""
    same = old.task_version == new.task_version and old.addresses == new.addresses and old.outgoing == new.outgoing
    return same and old.spec.task == new.spec.task and old.spec.ports == new.spec.ports


def _room(node: Node | None) -> Column:
    """A node that does not limit pids has all of them."""
    if node is None:
        return np.zeros(len(RESOURCES), np.int64)
    cpus, memory, pids = amounts(node.description.resources)
    return np.array([cpus, memory, pids or _UNLIMITED], np.int64)


def _add(counts: dict[str, dict[int, int]], key: str, place: int, sign: int) -> None:
    places = counts.setdefault(key, {})
    _count(places, place, sign)
    if not places:
        del counts[key]


def _count(counts: dict[int, int], place: int, sign: int) -> None:
    """Without a trace of what has come to nothing."""
    count = counts.get(place, 0) + sign
    if count:
        counts[place] = count
    else:
        del counts[place]
