"""Global services: one place on every node that is up, active and meets the constraints.

A paused node keeps what it has and gets nothing new. Tasks on nodes that may not have them are `enforce`'s part.
"""

from __future__ import annotations

from manager.control.action import Action
from manager.control.constraint import hold
from manager.orchestrator.places import Places
from manager.orchestrator.slot import Slot, told, wanted
from manager.store.view import View
from shoal.model.node import Availability, Node, NodeState
from shoal.model.service import Service
from shoal.model.task import Task, TaskState


def places(view: View, service: Service, now_ns: int) -> tuple[list[Slot], list[Action]]:
    """The places that the service is to have, but for those that are settled; and what ends those that no node knows
    of yet and none shall."""
    tasks = view.tasks_of_service(service.meta.id)
    known = view.follower(Places)
    slots = known.of(service.meta.id)
    restless = {slot.node_id for slot in known.restless(service.meta.id)}
    nodes = sorted(id for id, node in view.nodes.items() if takes(node, service))
    taken = set(nodes)
    kept = sorted(id for id in restless if id not in taken and _keeps(view.nodes.get(id)))
    actions = [
        told(task, TaskState.SHUTDOWN, now_ns, "its node does not take it any more")
        for task in tasks
        if wanted(task) and task.status.state < TaskState.ASSIGNED and task.node_id not in taken
    ]
    closed = (Slot(0, id, tuple(filter(_sent, slots[id].tasks)), closed=True) for id in kept)
    open = (slots.get(id) or Slot(0, id, ()) for id in nodes if id in restless or id not in slots)
    return [*open, *closed], actions


def takes(node: Node, service: Service) -> bool:
    """Whether the service is to run on `node`."""
    return (
        node.status.state == NodeState.READY
        and node.spec.availability == Availability.ACTIVE
        and hold(service.spec.task.placement.constraints, node)
    )


def has(view: View, service: Service, node_id: str) -> bool:
    """Whether the service has a place there."""
    node = view.nodes.get(node_id)
    return node is not None and takes(node, service)


def _keeps(node: Node | None) -> bool:
    """Whether what was sent there may stay, though nothing new goes there: what is held back must still be let go."""
    return (
        node is not None
        and node.status.state != NodeState.DOWN
        and (node.spec.availability == Availability.PAUSE or node.status.state == NodeState.UNKNOWN)
    )


def _sent(task: Task) -> bool:
    return task.status.state >= TaskState.ASSIGNED
