"""Places: the slots of all services, kept current with the view; and which of them are settled or stale.

A settled place needs nothing, whatever happens to nodes and however time passes, until one of its tasks changes or its
service does; a stale one nothing but its turn in a rolling update. Most are one of both, always: so an event costs what
it changes, not what its service has.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from typing import TypeAlias

import msgspec

from manager.orchestrator.departure import departing
from manager.orchestrator.slot import Slot, running
from manager.store.records import Noun
from manager.store.view import View
from shoal.model.service import Service, ServiceMode
from shoal.model.task import Task, TaskState

# The number of a replicated service's place, the node of a global one's.
Key: TypeAlias = int | str
_NO_SLOTS: Mapping[Key, Slot] = {}


class _Service(msgspec.Struct):
    slots: dict[Key, Slot] = msgspec.field(default_factory=dict)
    restless: dict[Key, None] = msgspec.field(default_factory=dict)
    stale: dict[Key, None] = msgspec.field(default_factory=dict)


class Places:
    """What is to be forgotten (REMOVE) has no place. `everywhere` are the global services, which have one on each
    node."""

    def __init__(self, view: View) -> None:
        self._services: dict[str, _Service] = {}
        self.everywhere = {id for id, each in view.services.items() if each.spec.mode == ServiceMode.GLOBAL}
        for task in view.tasks.values():
            self.changed(None, task)

    def changed(self, old: Noun | None, new: Noun | None) -> None:
        if isinstance(old, Service) or isinstance(new, Service):
            self._service(old, new)
        elif isinstance(old, Task) or isinstance(new, Task):
            if isinstance(old, Task) and _has_place(old):
                self._leave(old)
            if isinstance(new, Task) and _has_place(new):
                self._come(new)

    def of(self, service_id: str) -> Mapping[Key, Slot]:
        """The places that have tasks; in no order."""
        found = self._services.get(service_id)
        return found.slots if found is not None else _NO_SLOTS

    def restless(self, service_id: str) -> list[Slot]:
        """Those of them that are known to be neither settled nor stale."""
        found = self._services.get(service_id)
        return [found.slots[key] for key in found.restless] if found is not None else []

    def stale(self, service_id: str) -> Iterator[Slot]:
        """Those of them that are known to be stale, by number or node. What is not asked for is not looked for."""
        if (found := self._services.get(service_id)) is not None:
            keys = list(found.stale)
            heapq.heapify(keys)  # of one service all are of one kind
            while keys:
                yield found.slots[heapq.heappop(keys)]

    def settle(self, service: Service, slot: Slot, now_ns: int) -> bool:
        """Whether a place is settled or stale; it is remembered then."""
        is_stale = stale(service, slot)
        if not is_stale and not settled(service, slot, now_ns):
            return False
        found, key = self._services[service.meta.id], key_of(slot.tasks[-1])
        found.restless.pop(key, None)
        if is_stale:
            found.stale[key] = None
        return True

    def _service(self, old: Noun | None, new: Noun | None) -> None:
        if not isinstance(new, Service):
            self.everywhere.discard(old.meta.id if old else "")
            return
        if new.spec.mode == ServiceMode.GLOBAL:
            self.everywhere.add(new.meta.id)
        found = self._services.get(new.meta.id)
        if found is not None and not (isinstance(old, Service) and _alike(old, new)):
            found.restless = dict.fromkeys(found.slots)
            found.stale = {}

    def _leave(self, task: Task) -> None:
        found, key = self._services[task.service_id], key_of(task)
        rest = tuple(each for each in found.slots[key].tasks if each.meta.id != task.meta.id)
        self._hold(task, rest)

    def _come(self, task: Task) -> None:
        found = self._services.setdefault(task.service_id, _Service())
        slot = found.slots.get(key_of(task))
        self._hold(task, tuple(sorted((*slot.tasks, task), key=_age)) if slot is not None else (task,))

    def _hold(self, task: Task, tasks: tuple[Task, ...]) -> None:
        found, key = self._services[task.service_id], key_of(task)
        found.stale.pop(key, None)
        if tasks:
            found.slots[key] = Slot(task.slot, "" if task.slot else task.node_id, tasks)
            found.restless[key] = None
            return
        del found.slots[key]
        found.restless.pop(key, None)
        if not found.slots:
            del self._services[task.service_id]


def settled(service: Service, slot: Slot, now_ns: int) -> bool:
    """One task of the present version is to run and all others are over, and no update still counts it."""
    if not slot.tasks:
        return False
    *others, last = slot.tasks
    if last.task_version != service.task_version or last.finished or not _stays(last):
        return False
    if not all(task.finished and task.desired > TaskState.RUNNING for task in others):
        return False
    if all(task.task_version == last.task_version for task in others):
        return True
    return running(last) and last.since_ns(now_ns) + service.spec.update.delay_ns <= now_ns


def stale(service: Service, slot: Slot) -> bool:
    """One task of another version runs, as it is to until an update comes to it, and all others are over."""
    if not slot.tasks:
        return False
    *others, last = slot.tasks
    if last.task_version == service.task_version or not running(last) or not _stays(last):
        return False
    return all(task.finished and task.desired > TaskState.RUNNING for task in others)


def key_of(task: Task) -> Key:
    return task.slot or task.node_id


def _stays(task: Task) -> bool:
    return task.desired == TaskState.RUNNING and not departing(task)


def _has_place(task: Task) -> bool:
    return task.desired < TaskState.REMOVE


def _alike(old: Service, new: Service) -> bool:
    """In what `settled` asks of them."""
    return (old.task_version, old.spec.update.delay_ns) == (new.task_version, new.spec.update.delay_ns)


def _age(task: Task) -> tuple[int, int, str]:
    """Creation order; of two made in one moment the later written one is younger."""
    return (task.meta.created_at_ns, task.meta.version, task.meta.id)
