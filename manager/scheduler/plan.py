"""The plan: PENDING tasks to nodes, service by service, those that wait longest first.

One key for all, because all share the nodes. A task that fits nowhere stays PENDING with the reason in its status
message, and is tried again whenever something changes that may help. Tasks of global services know their node
already; here it is only asked whether it has room.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import msgspec

from manager.control.action import Action, change, touched
from manager.control.controller import NOTHING, Decision, Mint
from manager.scheduler.filter import Filters
from manager.scheduler.load import Load, demand
from manager.scheduler.rank import Emptiest, Ranking
from manager.store.mirror import MirrorEvent
from manager.store.records import Noun
from manager.store.view import View
from shoal.model.base import Resources
from shoal.model.service import Service
from shoal.model.task import Task, TaskState

name = "scheduler"
kinds = frozenset({"task", "node", "service", "network", "lease"})
_FEW = 24  # tasks of one service, up to which the nodes need not all be ranked
_AT_ONCE = 2000  # decided at a time, so that the daemon answers in between


def keys_for(event: MirrorEvent, view: View) -> Iterable[str]:
    if not view.tasks_unassigned():
        return ()
    old, new = event.old, event.new
    if event.kind == "task":
        waits = isinstance(new, Task) and new.status.state == TaskState.PENDING
        return ("cluster",) if waits or _frees(old, new) else ()
    return ("cluster",)


def _frees(old: Noun | None, new: Noun | None) -> bool:
    """Whether a task gives room back: what it took once it has ended, its part of the bound per node when it is told
    to."""
    if not isinstance(old, Task) or old.finished:
        return False
    return not isinstance(new, Task) or new.finished or old.desired <= TaskState.RUNNING < new.desired


def reconcile(view: View, key: str, now_ns: int, mint: Mint) -> Decision:  # noqa: ARG001
    groups = _waiting(view)
    if not groups:
        return NOTHING
    round = _Round(view, now_ns)
    actions: list[Action] = []
    for service, tasks in groups:
        actions += islice(round.place(service, tasks), _AT_ONCE - len(actions))
        if len(actions) >= _AT_ONCE:
            return Decision(tuple(actions), now_ns)
    actions += islice(round.explain(), _AT_ONCE - len(actions))
    return Decision(tuple(actions), now_ns if len(actions) >= _AT_ONCE else None)


def _waiting(view: View) -> list[tuple[Service, list[Task]]]:
    """By service; the oldest first. An outdated task is left out: `place` puts a present one into its place."""
    groups: dict[str, list[Task]] = {}
    waiting = (
        task
        for task in view.tasks_unassigned()
        if task.status.state == TaskState.PENDING and task.desired <= TaskState.RUNNING
    )
    for task in sorted(waiting, key=lambda task: (task.meta.created_at_ns, task.slot, task.meta.id)):
        service = view.services.get(task.service_id)
        if service is not None and task.task_version == service.task_version:
            groups.setdefault(task.service_id, []).append(task)
    return [(view.services[id], tasks) for id, tasks in groups.items()]


class _Round:
    """What the services of one plan share."""

    def __init__(self, view: View, now_ns: int) -> None:
        self._view = view
        self._now_ns = now_ns
        self._load = Load(view)
        self._emptiest: dict[tuple[str, ...], Emptiest] = {}
        self._unplaced: list[tuple[Filters, Task]] = []

    def place(self, service: Service, tasks: list[Task]) -> Iterator[Action]:
        """Tasks of one service are equal: where the first does not fit, neither do the others."""
        load = self._load
        wanted = demand(self._view, service)
        filters = Filters(load, service, wanted)
        ranking = self._ranking(service, filters, len(tasks))
        full = False
        for task in tasks:
            if task.node_id:
                place = self._own(task, filters)
            else:
                place = None if full else ranking.take(filters.fits)
                full = place is None
            if place is None:
                self._unplaced.append((filters, task))
                continue
            load.place(place, wanted)
            yield _assigned(task, load.nodes[place].meta.id, wanted.resources, self._now_ns)

    def explain(self) -> Iterator[Action]:
        """Why the others wait. When all are placed, because a later one may take what an earlier one did not want."""
        for filters, task in self._unplaced:
            place = self._load.index.get(task.node_id)
            why = filters.explained if place is None else filters.explain((place,))
            yield from _explained(task, why, self._now_ns)

    def _ranking(self, service: Service, filters: Filters, tasks: int) -> Ranking:
        constraints, candidates = service.spec.task.placement.constraints, filters.candidates()
        emptiest = None
        if tasks <= _FEW:
            if constraints not in self._emptiest:
                self._emptiest[constraints] = Emptiest(self._load, candidates)
            emptiest = self._emptiest[constraints]
        return Ranking(self._view, self._load, service, candidates, self._now_ns, emptiest)

    def _own(self, task: Task, filters: Filters) -> int | None:
        """The one node that a global service's task is for, if it has room."""
        place = self._load.index.get(task.node_id)
        return place if place is not None and place in filters.candidates() and filters.fits(place) else None


def _assigned(task: Task, node_id: str, reservations: Resources, now_ns: int) -> Action:
    status = msgspec.structs.replace(task.status, state=TaskState.ASSIGNED, message="assigned to a node", at_ns=now_ns)
    placed = touched(task, now_ns, node_id=node_id, status=status, reservations=reservations)
    return change(placed, f"best of the nodes that fit: {node_id}")


def _explained(task: Task, why: str, now_ns: int) -> Iterator[Action]:
    """Written only when it says something new."""
    if task.status.message != why:
        status = msgspec.structs.replace(task.status, message=why, at_ns=now_ns)
        yield change(touched(task, now_ns, status=status), why)
