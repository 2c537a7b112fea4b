"""Trust: what every node is told about whom to let in, of those whose certificate is one of the cluster's. Pure.

Managers are named, since a certificate still says manager when its node no longer is one; nodes that were removed are
named for as long as a certificate of theirs may live (`manager/ca/revocation.py`). The roots are told, too, and which
of them signs: while it is being replaced, nodes renew their certificates within a time that grows with their number.
"""

from __future__ import annotations

from manager.store.mirror import MirrorEvent
from manager.store.view import View
from shoal import defaults
from shoal.model.cluster import Cluster
from shoal.model.node import Node, Role
from shoal.model.trust import Trust
from shoal.tls import root_key_of

# While the root is being replaced: what the managers sign beside everything else.
RENEWALS_PER_S = 10


def trust_of(view: View) -> Trust:
    managers = sorted(node.meta.id for node in view.nodes.values() if node.spec.role is Role.MANAGER)
    revocations = tuple(view.revocations[id] for id in sorted(view.revocations))
    if (cluster := view.cluster) is None:
        return Trust(tuple(managers), revocations)
    signing = cluster.root_ca_pem if cluster.rotation is None else cluster.rotation.root_ca_pem
    both = cluster.root_ca_pem if cluster.rotation is None else cluster.root_ca_pem + signing
    within_ns = len(view.nodes) * defaults.SECOND_NS // RENEWALS_PER_S
    return Trust(tuple(managers), revocations, both, root_key_of(signing), within_ns)


def concerns(event: MirrorEvent) -> bool:
    """Whether what happened may have changed it."""
    return event.kind == "revocation" or any(fact(event.old) != fact(event.new) for fact in (_manages, _roots))


def _roots(value: object) -> tuple[object, ...]:
    return (value.root_ca_pem, value.rotation) if isinstance(value, Cluster) else ()


def _manages(value: object) -> bool:
    return isinstance(value, Node) and value.spec.role is Role.MANAGER
