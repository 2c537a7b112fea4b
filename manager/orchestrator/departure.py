"""Departure: how a task leaves a drained node. Another one runs elsewhere first, and only then it stops.

`enforce` writes into the task that it departs, and by when: all else follows from that, also for a new leader. `place`
has the next task made beside it, and tells it to end once that one runs, or once its time is over. From then on it is
like any task that is told to end: it leaves the balance first (`manager/dispatcher/withdrawal.py`).
"""

from __future__ import annotations

from manager.control.action import Action, change, touched
from manager.control.constraint import hold
from manager.control.controller import over_at_ns
from manager.orchestrator.slot import running
from manager.store.view import View
from shoal.model.network import PublishMode
from shoal.model.node import Availability, Node, NodeState
from shoal.model.service import Placement, ServiceMode, UpdateOrder
from shoal.model.task import Task, TaskState

# Long enough for a node to fetch an image; with this over, the operator's will counts for more.
PATIENCE_NS = 60_000_000_000


def may_depart(view: View, task: Task) -> bool:
    """Whether another task is to run before this one stops. A global service has no other place for it, nor has any
    where no other node takes tasks. A stop-first one with ports of its hosts, or with a bound per node, shares out what
    there is once: its places wait for each other."""
    service = view.services.get(task.service_id)
    if service is None or service.spec.mode == ServiceMode.GLOBAL:
        return False
    if not running(task) or task.desired != TaskState.RUNNING:
        return False
    spec = service.spec
    if not any(_takes(node, spec.task.placement) for node in view.nodes.values() if node.meta.id != task.node_id):
        return False
    scarce = spec.task.placement.max_per_node > 0 or any(port.mode == PublishMode.HOST for port in spec.ports)
    return spec.update.order == UpdateOrder.START_FIRST or not scarce


def _takes(node: Node, placement: Placement) -> bool:
    ready = node.status.state == NodeState.READY and node.spec.availability == Availability.ACTIVE
    return ready and hold(placement.constraints, node)


def depart(task: Task, now_ns: int, reason: str) -> Action:
    """`task` with the time by which it ends, whatever comes of the next one."""
    return change(touched(task, now_ns, depart_by_ns=now_ns + PATIENCE_NS), reason)


def departing(task: Task) -> bool:
    return task.depart_by_ns > 0


def ends_at_ns(task: Task, now_ns: int) -> int:
    """When a departing task is no more waited for."""
    return over_at_ns(task.depart_by_ns - PATIENCE_NS, PATIENCE_NS, now_ns)
