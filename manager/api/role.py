"""Role: when a node may become a manager or cease to be one. Pure; its agent, and the leader, do the rest."""

from __future__ import annotations

import msgspec

from manager.control.action import resting_on
from manager.store.base import Guard
from manager.store.view import View
from shoal.errors import Conflict
from shoal.model.node import ManagerStatus, Node, NodeSpec, Role


def with_spec(node: Node, spec: NodeSpec) -> Node:
    """`node` as `spec` wants it. A former manager is forgotten as one, but while it still is a member of etcd."""
    gone = spec.role is Role.WORKER and not node.manager.member_id
    return msgspec.structs.replace(node, spec=spec, manager=ManagerStatus() if gone else node.manager)


def check_promotion(view: View, node: Node) -> None:
    """Raises Conflict for a node that is ceasing to be a manager: its agent, which would hear of neither, would keep a
    manager whose member of etcd is gone."""
    if node.manager.member_id or node.meta.id in view.managers:
        raise Conflict(
            f"node {node.description.hostname} is still ceasing to be a manager", hint="promote it again in a moment"
        )


def demoting(view: View, node: Node) -> tuple[Guard, ...]:
    """What the demotion of a manager rests on: that the others go on as they are.

    Raises Conflict for the last one, and where what is left would have no quorum.
    """
    others = [each for id, each in view.nodes.items() if each.spec.role is Role.MANAGER and id != node.meta.id]
    if not others:
        raise Conflict("attempting to demote the last manager of the swarm", hint="promote another node first")
    voters = [each for each in others if each.manager.member_id]
    counted, needed = (voters, len(voters) // 2 + 1) if voters else (others, 1)
    answering = sum(1 for each in counted if each.meta.id in view.managers)
    if answering < needed:
        raise Conflict(
            f"node {node.description.hostname} cannot be demoted: of the {len(counted)} managers that would be left, "
            f"{needed} must answer, and {answering} do",
            hint="bring another one back first",
        )
    return resting_on(*others)
