"""Revocation: the certificates of a node that was removed count no more, although they have not run out.

The record is written with the node's removal and lasts until the last certificate that the node may hold has run
out; this module is also the controller that forgets it then. Nodes are told by the dispatcher.
"""

from __future__ import annotations

from collections.abc import Iterable

from manager.control.action import delete
from manager.control.controller import NOTHING, Decision, Mint
from manager.store.mirror import MirrorEvent
from manager.store.view import View
from shoal.model.base import Meta
from shoal.model.cluster import Cluster
from shoal.model.node import Node
from shoal.model.trust import Revocation
from shoal.tls import BACKDATE

name = "revocation"
kinds = frozenset({"revocation"})
# Hosts whose clocks are apart by as much as a new certificate is backdated must agree that all have run out.
_SLACK_NS = int(BACKDATE.total_seconds() * 1e9)


def revoking(node: Node, cluster: Cluster, now_ns: int) -> Revocation:
    """The record that goes with the removal of `node`. One that was issued before the cluster shortened the life of
    certificates says itself how long it lives."""
    until_ns = max(now_ns + cluster.spec.certificate_life_ns, node.description.certificate.not_after_ns)
    return Revocation(Meta(id=node.meta.id, created_at_ns=now_ns, updated_at_ns=now_ns), until_ns + _SLACK_NS)


def keys_for(event: MirrorEvent, view: View) -> Iterable[str]:  # noqa: ARG001
    return (event.id,) if event.new is not None else ()


def reconcile(view: View, key: str, now_ns: int, mint: Mint) -> Decision:  # noqa: ARG001
    revocation = view.revocations.get(key)
    if revocation is None:
        return NOTHING
    if now_ns < revocation.until_ns:
        return Decision(requeue_at_ns=revocation.until_ns)
    return Decision((delete(revocation, "the certificates of its node have all run out"),))
