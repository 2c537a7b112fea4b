"""Slot: the tasks that one place of a service has had, and the words that decisions about it are made in.

A place is a number (replicated) or a node (global). Its tasks come oldest first. A task is *wanted* while it is to
run and has not ended; a task *ended by itself* when nobody told it to; a place is *vacant* when nothing is wanted
in it.
"""

from __future__ import annotations

import msgspec

from manager.control.action import Action, change, create, resting_on, touched
from manager.control.attachment import lacking
from manager.store.view import View
from shoal.model.base import Meta
from shoal.model.node import NodeState
from shoal.model.service import Service
from shoal.model.task import Task, TaskState, TaskStatus

_BY_ITSELF = frozenset({TaskState.COMPLETE, TaskState.FAILED, TaskState.REJECTED})


class Slot(msgspec.Struct, frozen=True):
    """`number` is 0 and `node_id` given for a global service's place; the other way round for a replicated one's. A
    `closed` place keeps what it has and gets no new task."""

    number: int
    node_id: str
    tasks: tuple[Task, ...]
    closed: bool = False

    @property
    def wanted(self) -> tuple[Task, ...]:
        return tuple(task for task in self.tasks if wanted(task))

    @property
    def newest(self) -> Task | None:
        return self.tasks[-1] if self.tasks else None

    def before(self, task: Task) -> Task | None:
        """The task that `task` came after in this place."""
        place = self.tasks.index(task)
        return self.tasks[place - 1] if place else None


def wanted(task: Task) -> bool:
    return task.desired <= TaskState.RUNNING and not task.finished


def ended_by_itself(task: Task) -> bool:
    """Rather than told to: so that the restart policy has a say in what comes next."""
    return task.status.state in _BY_ITSELF


def running(task: Task) -> bool:
    return task.status.state == TaskState.RUNNING


def held(view: View, slot: Slot) -> bool:
    """Whether a task of this place was told to end and has not yet, on a node that can be heard."""
    return any(
        task.desired > TaskState.RUNNING
        and TaskState.ASSIGNED <= task.status.state <= TaskState.RUNNING
        and (node := view.nodes.get(task.node_id)) is not None
        and node.status.state != NodeState.DOWN
        for task in slot.tasks
    )


def new_task(
    view: View,
    service: Service,
    slot: Slot,
    *,
    id: str,
    now_ns: int,
    desired: TaskState,
    reason: str,
    after: Task | None,
) -> Action:
    """A task in `slot`; it is not made when `after` has changed since the decision. It begins as PENDING where the
    allocator has nothing to do for it: one write less for most tasks."""
    state = TaskState.NEW if lacking(view, service) else TaskState.PENDING
    # Younger than those before it, also when the clock was set back since: which one is the newest decides much.
    newest_ns = slot.newest.meta.created_at_ns if slot.newest else 0
    created_at_ns = newest_ns + 1 if newest_ns > now_ns else now_ns
    task = Task(
        meta=Meta(id=id, created_at_ns=created_at_ns, updated_at_ns=now_ns),
        service_id=service.meta.id,
        task_version=service.task_version,
        slot=slot.number,
        node_id=slot.node_id,
        desired=desired,
        status=TaskStatus(state=state, at_ns=now_ns),
    )
    return create(task, reason, rests_on=resting_on(after) if after else ())


def told(task: Task, desired: TaskState, now_ns: int, reason: str) -> Action:
    """`task` with a higher desired state."""
    return change(touched(task, now_ns, desired=desired), reason)
