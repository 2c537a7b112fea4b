"""Queue: the tasks that wait for a node, by service, those that wait longest first. It follows the view.

It also remembers what was found out about them, so that it need not be found out again while nothing changes.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from manager.scheduler.demand import Demand
from manager.store.records import Noun
from manager.store.view import View
from shoal.model.task import Task, TaskState


class Queue:
    def __init__(self, view: View) -> None:
        self.memory = Memory()
        self._waiting: dict[str, dict[str, Task]] = {}
        self._latest_ns = 0
        self._ordered = True
        for task in view.tasks_unassigned():
            self.changed(None, task)

    def changed(self, old: Noun | None, new: Noun | None) -> None:
        if isinstance(new, Task) and waits(new):
            if not (isinstance(old, Task) and waits(old)):
                self.memory.arrived += 1
                self._ordered &= new.meta.created_at_ns >= self._latest_ns
                self._latest_ns = max(self._latest_ns, new.meta.created_at_ns)
            self._waiting.setdefault(new.service_id, {})[new.meta.id] = new
        elif isinstance(old, Task) and waits(old):
            tasks = self._waiting[old.service_id]
            del tasks[old.meta.id]
            if not tasks:
                del self._waiting[old.service_id]
                self.memory.told.pop(old.service_id, None)

    def __len__(self) -> int:
        return len(self._waiting)

    def groups(self) -> Mapping[str, Mapping[str, Task]]:
        """Tasks by service and id, the oldest first; of services, the one that has waited longest."""
        if not self._ordered:
            groups = {id: dict(sorted(tasks.items(), key=_age)) for id, tasks in self._waiting.items()}
            self._waiting = dict(sorted(groups.items(), key=lambda each: _age(next(iter(each[1].items())))))
            self._ordered = True
        return self._waiting


class Memory(msgspec.Struct):
    """What holds until a node has room that it did not have (`Load.freed`), or another task waits.

    `stuck`: demands, and tasks with a node of their own, that fit nowhere, at `stuck_at`. `settled`: when nothing
    waited but what is stuck. `told`: by service, when its tasks were last told why they wait.
    """

    arrived: int = 0
    stuck: set[Demand | str] = msgspec.field(default_factory=set)
    stuck_at: int = -1
    settled: tuple[int, int] = (-1, -1)
    told: dict[str, tuple[int, int]] = msgspec.field(default_factory=dict)

    def recall(self, freed: int) -> None:
        """Forget what is not true any more."""
        if freed != self.stuck_at:
            self.stuck.clear()
            self.stuck_at = freed


def waits(task: Task) -> bool:
    return task.status.state == TaskState.PENDING and task.desired <= TaskState.RUNNING


def _age(entry: tuple[str, Task]) -> tuple[int, int, str]:
    id, task = entry
    return task.meta.created_at_ns, task.slot, id
