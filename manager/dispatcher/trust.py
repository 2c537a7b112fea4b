"""Trust: whom every node is told to let in, of those whose certificate is one of the cluster's. Pure.

Managers are named, since a certificate still says manager when its node no longer is one; nodes that were removed are
named for as long as a certificate of theirs may live (`manager/ca/revocation.py`).
"""

from __future__ import annotations

from manager.store.mirror import MirrorEvent
from manager.store.view import View
from shoal.model.node import Node, Role
from shoal.model.trust import Trust


def trust_of(view: View) -> Trust:
    managers = sorted(node.meta.id for node in view.nodes.values() if node.spec.role is Role.MANAGER)
    return Trust(tuple(managers), tuple(view.revocations[id] for id in sorted(view.revocations)))


def concerns(event: MirrorEvent) -> bool:
    """Whether what happened may have changed it."""
    return event.kind == "revocation" or _manages(event.old) != _manages(event.new)


def _manages(value: object) -> bool:
    return isinstance(value, Node) and value.spec.role is Role.MANAGER
