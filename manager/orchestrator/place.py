"""Tending one place of a service: it has one wanted task, of whatever version, unless its last one is to be the last.

What has ended is written off, what is too many is told to end, what is missing is made, and what was held back is
let go when its time has come. One that departs from a drained node is no more what is wanted, and ends when that runs.
Bringing running places to a new version, a few at a time, is `update`'s part.
"""

from __future__ import annotations

import msgspec

from manager.control.action import Action
from manager.control.controller import Mint, earliest
from manager.orchestrator import departure, restart
from manager.orchestrator.departure import departing
from manager.orchestrator.slot import Slot, held, new_task, running, told, wanted
from manager.store.view import View
from shoal.model.service import Service, UpdateOrder
from shoal.model.task import Task, TaskState


class Tended(msgspec.Struct, frozen=True):
    """`requeue_at_ns`: when a task that is held back may run, or a vacant place be filled."""

    actions: tuple[Action, ...] = ()
    requeue_at_ns: int | None = None


def tend(view: View, service: Service, slot: Slot, now_ns: int, mint: Mint) -> Tended:
    """What this place needs now."""
    actions = [
        told(task, TaskState.SHUTDOWN, now_ns, "it has ended")
        for task in slot.tasks
        if task.finished and task.desired <= TaskState.RUNNING
    ]
    extra = _surplus(service, slot)
    actions += [told(task, TaskState.SHUTDOWN, now_ns, "another task has its place") for task in extra]
    unsent = [task for task in slot.wanted if task not in extra and _unsent(service, task)]
    actions += [told(task, TaskState.SHUTDOWN, now_ns, "outdated before a node knew of it") for task in unsent]
    kept = [task for task in slot.wanted if task not in extra and task not in unsent]
    later = None
    if leaver := next(filter(departing, kept), None):
        kept.remove(leaver)
        if (ends_at_ns := departure.ends_at_ns(leaver, now_ns)) > now_ns:
            later = ends_at_ns
        else:
            actions.append(told(leaver, TaskState.SHUTDOWN, now_ns, "nothing has taken its place in time"))
    if not kept:
        if slot.closed or restart.over(service, slot, now_ns):
            return Tended(tuple(actions), later)
        until_ns = restart.vacant_until_ns(service, slot, now_ns)
        if until_ns > now_ns:
            return Tended(tuple(actions), earliest(later, until_ns))
        return Tended((*actions, fill(view, service, slot, now_ns, mint)), later)
    for task in kept:
        if task.desired == TaskState.READY:
            at_ns = restart.release_at_ns(service, slot, task, now_ns, held=held(view, slot))
            if at_ns <= now_ns:
                actions.append(told(task, TaskState.RUNNING, now_ns, "its place is free and its delay is over"))
            else:
                later = earliest(later, at_ns)
    return Tended(tuple(actions), later)


def fill(view: View, service: Service, slot: Slot, now_ns: int, mint: Mint) -> Action:
    """The next task of a place. It prepares already, and runs when those before it have ended and the delay of the
    restart policy is over."""
    last = slot.newest
    waits = restart.delay_ns(service, slot, last) > 0 or held(view, slot)
    return new_task(
        view,
        service,
        slot,
        id=mint(),
        now_ns=now_ns,
        desired=TaskState.READY if waits else TaskState.RUNNING,
        reason="its place has no task" if last is None else f"replaces {last.meta.id}",
        after=last,
    )


def _surplus(service: Service, slot: Slot) -> list[Task]:
    """Wanted tasks that are too many. Two stand in one place only while a start-first update, or one that departs from
    a drained node, waits for the new one to run."""
    tasks = slot.wanted
    if len(tasks) < 2:
        return []
    leaver = _best([task for task in tasks if departing(task)])
    staying = [task for task in tasks if not departing(task)]
    new = _best([task for task in staying if task.task_version == service.task_version])
    old = _best([task for task in staying if task.task_version != service.task_version])
    if any(running(task) for task in (new, old) if task is not None):
        leaver = None
    start_first = leaver is None and service.spec.update.order == UpdateOrder.START_FIRST
    if new is not None and (running(new) or not start_first):
        old = None
    return [task for task in tasks if task is not new and task is not old and task is not leaver]


def _unsent(service: Service, task: Task) -> bool:
    """Whether it is of an older version and no node knows of it. It stops nobody from having a present one at once,
    and the scheduler does not place it: what it would have needed may be known no more."""
    return task.task_version != service.task_version and task.status.state < TaskState.ASSIGNED


def _best(tasks: list[Task]) -> Task | None:
    """The running one, or the one that is furthest; of equals the oldest."""
    return max(tasks, key=lambda task: (task.status.state, task.desired, -tasks.index(task)), default=None)


def outdated(service: Service, slot: Slot) -> bool:
    """Whether what is wanted in it is of another version only."""
    versions = {task.task_version for task in slot.tasks if wanted(task)}
    return bool(versions) and service.task_version not in versions
