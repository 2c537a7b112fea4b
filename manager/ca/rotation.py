"""Rotation: the cluster's root is replaced while everything runs. Pure; a controller of the control loop.

From the first transaction on the new root signs, and both are trusted; nodes are told with their sessions, and renew
their certificates within a time that grows with their number. When all have, or the deadline has come, the old root
goes, the join tokens with it. All that it takes stands in the cluster's record: whichever manager leads goes on.

A node that missed it trusts only the old root. It finds the way for as long as a node may come back by its old key:
managers show the new root's key signed by the old one, and take its old certificate for the key that the node's record
names, and no other: an old root whose key is known to somebody else is good for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from manager.ca.authority import CA_KEY, Authority, Seal
from manager.ca.signer import authority_of
from manager.ca.token import sealed_secret
from manager.control.action import change, touched
from manager.control.controller import NOTHING, Decision, Mint
from manager.store.mirror import MirrorEvent
from manager.store.view import View
from shoal.errors import Conflict
from shoal.model.cluster import Cluster, FormerRoot, RootRotation
from shoal.model.node import CertificateInfo, Node, Role
from shoal.tls import root_key_of

name = "rotation"
kinds = frozenset({"cluster", "node"})


def begun(cluster: Cluster, new: Authority, seal: Seal, *, now_ns: int, deadline_ns: int) -> Cluster:
    """The record with the rotation to `new` begun. Raises Conflict while another is under way."""
    if cluster.rotation is not None:
        raise Conflict(
            "the cluster's root is being replaced already", hint="wait for its end: shoal swarm ca --progress"
        )
    if root_key_of(new.root_ca_pem) == root_key_of(cluster.root_ca_pem):
        raise Conflict("this is the cluster's root already")
    rotation = RootRotation(
        root_ca_pem=new.root_ca_pem,
        cross_pem=authority_of(cluster, seal).cross_sign(new, now_ns),
        sealed_ca_key=seal.seal(new.key_pem, CA_KEY),
        sealed_worker_secret=sealed_secret(seal, Role.WORKER),
        sealed_manager_secret=sealed_secret(seal, Role.MANAGER),
        began_ns=now_ns,
        deadline_ns=deadline_ns,
    )
    return touched(cluster, now_ns, rotation=rotation)


def waited_for(view: View, rotation: RootRotation) -> list[Node]:
    """The nodes that have no certificate of the new root yet."""
    key = root_key_of(rotation.root_ca_pem)
    return [node for node in view.nodes.values() if node.description.certificate.issuer_key != key]


def roots_known(cluster: Cluster) -> list[str]:
    """Every root that may have signed a certificate of the cluster, the present one first."""
    rotation = [cluster.rotation.root_ca_pem] if cluster.rotation is not None else []
    return [cluster.root_ca_pem, *rotation, *(each.root_ca_pem for each in cluster.former_roots)]


def outlived(cluster: Cluster, certificate: CertificateInfo | None) -> bool:
    """Whether a certificate is of a root that was replaced."""
    return certificate is not None and any(
        root_key_of(each.root_ca_pem) == certificate.issuer_key for each in cluster.former_roots
    )


def keys_for(event: MirrorEvent, view: View) -> Iterable[str]:
    if view.cluster is None or (view.cluster.rotation is None and event.kind != "cluster"):
        return ()
    return (view.cluster.meta.id,)


def reconcile(view: View, key: str, now_ns: int, mint: Mint) -> Decision:  # noqa: ARG001
    cluster = view.cluster
    if cluster is None or cluster.meta.id != key:
        return NOTHING
    if (rotation := cluster.rotation) is not None:
        if waited_for(view, rotation) and now_ns < rotation.deadline_ns:
            return Decision(requeue_at_ns=rotation.deadline_ns)
        return Decision((change(_ended(cluster, rotation, now_ns), "every node has moved to the new root"),))
    kept = tuple(each for each in cluster.former_roots if now_ns < each.until_ns)
    if kept != cluster.former_roots:
        return Decision((change(touched(cluster, now_ns, former_roots=kept), "nobody comes back by it any more"),))
    return Decision(requeue_at_ns=min((each.until_ns for each in kept), default=None))


def _ended(cluster: Cluster, rotation: RootRotation, now_ns: int) -> Cluster:
    until_ns = now_ns + cluster.spec.certificate_life_ns + cluster.spec.certificate_grace_ns
    former = FormerRoot(cluster.root_ca_pem, rotation.cross_pem, until_ns)
    return touched(
        cluster,
        now_ns,
        root_ca_pem=rotation.root_ca_pem,
        sealed_ca_key=rotation.sealed_ca_key,
        sealed_worker_secret=rotation.sealed_worker_secret,
        sealed_manager_secret=rotation.sealed_manager_secret,
        rotation=None,
        former_roots=(*cluster.former_roots, former),
    )
