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
from manager.scheduler.rank import ranked
from manager.store.mirror import MirrorEvent
from manager.store.view import View
from shoal.model.service import Service
from shoal.model.task import Task, TaskState

name = "scheduler"
kinds = frozenset({"task", "node", "service", "network", "lease"})
_AT_ONCE = 2000  # decided at a time, so that the daemon answers in between


def keys_for(event: MirrorEvent, view: View) -> Iterable[str]:
    if not view.tasks_unassigned():
        return ()
    old, new = event.old, event.new
    if event.kind == "task":
        waits = isinstance(new, Task) and new.status.state == TaskState.PENDING
        frees = isinstance(old, Task) and not old.finished and (not isinstance(new, Task) or new.finished)
        return ("cluster",) if waits or frees else ()
    return ("cluster",)


def reconcile(view: View, key: str, now_ns: int, mint: Mint) -> Decision:  # noqa: ARG001
    groups = _waiting(view)
    if not groups:
        return NOTHING
    load = Load(view)
    actions: list[Action] = []
    for service_id, tasks in groups.items():
        service = view.services.get(service_id)
        if service is None:
            continue
        actions += islice(_placed(view, load, service, tasks, now_ns), _AT_ONCE - len(actions))
        if len(actions) >= _AT_ONCE:
            return Decision(tuple(actions), now_ns)
    return Decision(tuple(actions))


def _waiting(view: View) -> dict[str, list[Task]]:
    """By service; the oldest first."""
    groups: dict[str, list[Task]] = {}
    waiting = (
        task
        for task in view.tasks_unassigned()
        if task.status.state == TaskState.PENDING and task.desired <= TaskState.RUNNING
    )
    for task in sorted(waiting, key=lambda task: (task.meta.created_at_ns, task.slot, task.meta.id)):
        groups.setdefault(task.service_id, []).append(task)
    return groups


def _placed(view: View, load: Load, service: Service, tasks: list[Task], now_ns: int) -> Iterator[Action]:
    """Tasks of one service are equal: where the first does not fit, neither do the others."""
    wanted = demand(view, service)
    filters = Filters(load, service, wanted)
    candidates = list(filters.candidates())
    best = ranked(view, load, service, candidates, now_ns)
    allowed = set(candidates)
    full = ""
    for task in tasks:
        if task.node_id:
            place = load.index.get(task.node_id)
            fits = place in allowed and filters.fits(place) if place is not None else False
            chosen = place if fits else None
            why = "" if fits else filters.explain(() if place is None else (place,))
        else:
            chosen = None if full else best.take(filters.fits)
            why = full = full or ("" if chosen is not None else filters.explain(range(len(load.nodes))))
        if chosen is None:
            yield from _explained(task, why, now_ns)
            continue
        load.place(chosen, wanted)
        yield _assigned(task, load.nodes[chosen].meta.id, now_ns)


def _assigned(task: Task, node_id: str, now_ns: int) -> Action:
    status = msgspec.structs.replace(task.status, state=TaskState.ASSIGNED, message="assigned to a node", at_ns=now_ns)
    return change(touched(task, now_ns, node_id=node_id, status=status), f"best of the nodes that fit: {node_id}")


def _explained(task: Task, why: str, now_ns: int) -> Iterator[Action]:
    """Written only when it says something new."""
    if task.status.message != why:
        status = msgspec.structs.replace(task.status, message=why, at_ns=now_ns)
        yield change(touched(task, now_ns, status=status), why)
