"""Global services: one place on every node that is up, active and meets the constraints.

A paused node keeps what it has and gets nothing new. Tasks on nodes that may not have them are `enforce`'s part.
"""

from __future__ import annotations

from manager.control.constraint import hold
from manager.orchestrator.slot import Slot, slots_of
from manager.store.view import View
from shoal.model.node import Availability, Node, NodeState
from shoal.model.service import Service


def places(view: View, service: Service) -> list[Slot]:
    slots = slots_of(view.tasks_of_service(service.meta.id), by_node=True)
    nodes = sorted(id for id, node in view.nodes.items() if takes(node, service))
    return [slots.get(id) or Slot(0, id, ()) for id in nodes]


def takes(node: Node, service: Service) -> bool:
    """Whether the service is to run on `node`."""
    return (
        node.status.state == NodeState.READY
        and node.spec.availability == Availability.ACTIVE
        and hold(service.spec.task.placement.constraints, node)
    )
