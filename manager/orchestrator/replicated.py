"""Replicated services: `replicas` places, numbered from 1.

Too few: the lowest free numbers are taken. Too many: places go from the nodes that have the most of the service, those
that do not run before those that do, and the highest number first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import islice

from manager.control.action import Action
from manager.orchestrator.places import Places
from manager.orchestrator.slot import Slot, running, told
from manager.store.view import View
from shoal.model.service import Service
from shoal.model.task import TaskState

_AT_ONCE = 2000


def places(view: View, service: Service, now_ns: int) -> tuple[list[Slot], list[Action]]:
    """The places that the service is to have, but for those that are settled; and what ends those that are too many.
    Of many that have no task yet, some: the others come when these have one."""
    known = view.follower(Places)
    slots = known.of(service.meta.id)
    replicas = service.spec.replicas
    kept = known.restless(service.meta.id)
    actions: list[Action] = []
    if len(slots) > replicas:
        dropped = _by_worth(slots.values())[replicas:]
        numbers = {slot.number for slot in dropped}
        kept = [slot for slot in kept if slot.number not in numbers]
        actions = [
            told(task, TaskState.REMOVE, now_ns, f"scaled down to {replicas}")
            for slot in dropped
            for task in slot.tasks
        ]
    free = (number for number in range(1, replicas + 1) if number not in slots)
    kept += [Slot(number, "", ()) for number in islice(free, min(_AT_ONCE, max(0, replicas - len(slots))))]
    return sorted(kept, key=lambda slot: slot.number), actions


def _by_worth(slots: Iterable[Slot]) -> list[Slot]:
    """The first to keep first: a place counts by how many of the service its node has before it."""
    runs = {slot.number: any(running(task) for task in slot.wanted) for slot in slots}
    seen: Counter[str] = Counter()
    worth: dict[int, tuple[bool, bool, int, bool, int]] = {}
    ordered = sorted(slots, key=lambda slot: (not runs[slot.number], slot.number))
    for slot in ordered:
        node_id = next((task.node_id for task in reversed(slot.wanted) if task.node_id), "")
        seen[node_id] += 1
        worth[slot.number] = (not slot.wanted, not node_id, seen[node_id], not runs[slot.number], slot.number)
    return sorted(ordered, key=lambda slot: worth[slot.number])
