"""The reaper: forgets tasks. A place keeps its last few finished ones (`task_history`), so that people can see what
happened and `restart` can count; a task that is to be REMOVEd goes once it has ended.

A task that no node was told of ends by being forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from manager.control.action import delete
from manager.control.controller import Decision, Mint
from manager.orchestrator import restart
from manager.orchestrator.place import outdated
from manager.orchestrator.places import Places
from manager.orchestrator.slot import Slot
from manager.store.mirror import MirrorEvent
from manager.store.view import View
from shoal.model.service import Service, ServiceMode
from shoal.model.task import Task, TaskState

name = "reaper"
kinds = frozenset({"cluster", "node", "service", "task"})


def keys_for(event: MirrorEvent, view: View) -> Iterable[str]:
    new = event.new
    if isinstance(new, Task):
        return (new.service_id,) if new.finished or new.desired > TaskState.RUNNING else ()
    if event.kind == "service":
        return (event.id,)
    if event.kind == "node":
        return {task.service_id for task in view.tasks_of_node(event.id)} if new is None else ()
    return view.services_with_tasks() if event.kind == "cluster" else ()


def reconcile(view: View, key: str, now_ns: int, mint: Mint) -> Decision:  # noqa: ARG001
    tasks = view.tasks_of_service(key)
    service = view.services.get(key)
    actions = [delete(task, "it was to be removed and has ended") for task in tasks if _removable(view, task)]
    if service is not None and view.cluster is not None:
        surplus = _surplus(view, service, view.cluster.spec.task_history)
        actions += [delete(task, "its place keeps no more history") for task in surplus]
    return Decision(tuple(actions))


def _removable(view: View, task: Task) -> bool:
    if task.desired <= TaskState.RUNNING:
        return False
    if task.status.state < TaskState.ASSIGNED:
        return True
    return task.desired == TaskState.REMOVE and (task.finished or task.node_id not in view.nodes)


def _surplus(view: View, service: Service, task_history: int) -> Iterator[Task]:
    by_node = service.spec.mode == ServiceMode.GLOBAL
    slots = view.follower(Places).of(service.meta.id).values()
    keep = restart.history(service.spec.task.restart, task_history)
    updating: bool | None = None
    for slot in slots:
        if by_node and slot.node_id not in view.nodes:
            yield from (task for task in slot.tasks if task.finished)
        elif len(slot.tasks) > 1 and (beyond := _beyond(slot, keep)):
            if updating is None:
                updating = any(outdated(service, each) for each in slots)
            # `update` knows the places it has been to by the outdated task that they keep.
            spared = _last_outdated(service, slot) if updating else None
            yield from (task for task in beyond if task is not spared)


def _beyond(slot: Slot, keep: int) -> list[Task]:
    """All but the last `keep` finished tasks; the last one of a vacant place says why it is vacant."""
    dead = [task for task in slot.tasks if task.finished and task.desired > TaskState.RUNNING]
    if not slot.wanted:
        keep = max(keep, 1)
    return dead[: max(0, len(dead) - keep)]


def _last_outdated(service: Service, slot: Slot) -> Task | None:
    return next((task for task in reversed(slot.tasks) if task.task_version != service.task_version), None)
