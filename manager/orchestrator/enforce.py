"""Enforcement: tasks on nodes where they cannot stay are told to end, so that `services` replaces them elsewhere; those
of a drained node depart first (`departure`), where that can be.

One key per node. A node that is down keeps its tasks' records, and is told to end them when it comes back; after
a day, or when it was removed, they are given up (ORPHANED), which frees what they held.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from manager.control.action import Action, change, touched
from manager.control.constraint import hold
from manager.control.controller import NOTHING, Decision, Mint
from manager.orchestrator.departure import depart, departing, may_depart
from manager.orchestrator.slot import told, wanted
from manager.store.mirror import MirrorEvent
from manager.store.view import View
from shoal.model.node import Availability, Node, NodeState
from shoal.model.service import Service
from shoal.model.task import Task, TaskState

name = "enforce"
kinds = frozenset({"node", "service", "task"})
ORPHAN_AFTER_NS = 24 * 3600 * 1_000_000_000


def keys_for(event: MirrorEvent, view: View) -> Iterable[str]:
    if event.kind == "node":
        return (event.id,)
    old, new = event.old, event.new
    if isinstance(old, Service) and isinstance(new, Service):
        if old.spec.task.placement == new.spec.task.placement:
            return ()
        return {task.node_id for task in view.tasks_of_service(event.id) if task.node_id}
    if not isinstance(new, Task) or not _sent(new) or (isinstance(old, Task) and _sent(old)):
        return ()
    # A task counts when it comes to a node: the node may have changed while that was being decided.
    node = view.nodes.get(new.node_id)
    fit = node is not None and node.status.state != NodeState.DOWN and not _unfit(view, node, new)
    return () if fit else (new.node_id,)


def reconcile(view: View, key: str, now_ns: int, mint: Mint) -> Decision:  # noqa: ARG001
    node = view.nodes.get(key)
    tasks = view.tasks_of_node(key)
    if node is None:
        return Decision(tuple(_given_up(task, now_ns, "its node was removed") for task in tasks if not task.finished))
    if node.status.state == NodeState.DOWN:
        return _down(node, tasks, now_ns)
    if node.spec.availability == Availability.PAUSE:
        return NOTHING
    unfit = ((task, why) for task in tasks if wanted(task) and (why := _unfit(view, node, task)))
    return Decision(tuple(_evicted(view, node, task, now_ns, why) for task, why in unfit if not departing(task)))


def _down(node: Node, tasks: Iterable[Task], now_ns: int) -> Decision:
    held = [task for task in tasks if not task.finished]
    if not held:
        return NOTHING
    give_up_at_ns = node.status.since_ns + ORPHAN_AFTER_NS
    if give_up_at_ns <= now_ns:
        return Decision(tuple(_given_up(task, now_ns, "its node has been down for a day") for task in held))
    told_now = (told(task, TaskState.SHUTDOWN, now_ns, "its node is down") for task in held if wanted(task))
    return Decision(tuple(told_now), give_up_at_ns)


def _evicted(view: View, node: Node, task: Task, now_ns: int, why: str) -> Action:
    if node.spec.availability == Availability.DRAIN and may_depart(view, task):
        return depart(task, now_ns, why)
    return told(task, TaskState.SHUTDOWN, now_ns, why)


def _unfit(view: View, node: Node, task: Task) -> str:
    """Why a task cannot stay; empty when it can. What counts is what its service asks for now."""
    if node.spec.availability == Availability.DRAIN:
        return "its node is drained"
    service = view.services.get(task.service_id)
    if service is not None and not hold(service.spec.task.placement.constraints, node):
        return "its node no longer meets the constraints"
    return ""


def _sent(task: Task) -> bool:
    return task.status.state >= TaskState.ASSIGNED


def _given_up(task: Task, now_ns: int, why: str) -> Action:
    status = msgspec.structs.replace(task.status, state=TaskState.ORPHANED, message=why, at_ns=now_ns)
    desired = max(task.desired, TaskState.SHUTDOWN)
    return change(touched(task, now_ns, desired=desired, status=status), why)
