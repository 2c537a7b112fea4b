"""The controller of services: one key per service, from its spec and its tasks to the tasks it needs.

A service that is gone has its tasks told to go (REMOVE); the `reaper` forgets them once they have ended.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from manager.control.controller import Decision, Mint, earliest
from manager.orchestrator import per_node, replicated, update
from manager.orchestrator.place import tend
from manager.orchestrator.places import Places
from manager.orchestrator.slot import Slot, told
from manager.store.mirror import MirrorEvent
from manager.store.view import View
from shoal.model.service import ServiceMode
from shoal.model.task import Task, TaskState

name = "services"
kinds = frozenset({"service", "task", "node"})
_AT_ONCE = 2000  # places decided on for one service at a time; the rest follows at once


def keys_for(event: MirrorEvent, view: View) -> Iterable[str]:
    value = event.new or event.old
    if isinstance(value, Task):
        return (value.service_id,)
    if event.kind == "service":
        return (event.id,)
    here = {task.service_id for task in view.tasks_of_node(event.id)}
    return here | view.follower(Places).everywhere


def reconcile(view: View, key: str, now_ns: int, mint: Mint) -> Decision:
    service = view.services.get(key)
    if service is None:
        orphans = (task for task in view.tasks_of_service(key) if task.desired < TaskState.REMOVE)
        told_now = [told(task, TaskState.REMOVE, now_ns, "its service is gone") for task in islice(orphans, _AT_ONCE)]
        return Decision(tuple(told_now), now_ns if len(told_now) == _AT_ONCE else None)
    is_global = service.spec.mode == ServiceMode.GLOBAL
    slots, actions = (per_node if is_global else replicated).places(view, service, now_ns)
    if adopted := list(islice(update.adopt(service, slots, now_ns), _AT_ONCE)):
        return Decision((*actions, *adopted), now_ns)
    known = view.follower(Places)
    requeue_at_ns = None
    busy = settled = 0
    quiet = []
    for slot in slots:
        if not slot.closed and known.settle(service, slot, now_ns):
            settled += 1
        else:
            tended = tend(view, service, slot, now_ns, mint)
            requeue_at_ns = earliest(requeue_at_ns, tended.requeue_at_ns)
            actions += tended.actions
            busy += bool(tended.actions)
            quiet.append(slot)
        if len(actions) + settled >= _AT_ONCE:
            return Decision(tuple(actions), now_ns)
    if busy:
        return Decision(tuple(actions), requeue_at_ns)
    # What `places` ends is of stale places, too: the update goes on when that is written.
    stale: Iterable[Slot] = known.stale(key) if not actions else ()
    if is_global:
        stale = (slot for slot in stale if per_node.has(view, service, slot.node_id))
    updated = update.step(view, service, quiet, stale, now_ns, mint)
    return Decision((*actions, *updated.actions), earliest(requeue_at_ns, updated.requeue_at_ns))
