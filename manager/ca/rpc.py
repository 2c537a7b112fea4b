"""JoinService and CertificateService: who gets a certificate, and on what grounds.

Joining stands on its own port, with TLS that only proves the manager; the token is the ground, and the node's
record is written before its certificate leaves. Renewal stands behind mutual TLS; the ground is the caller's own
certificate and that its node was not removed. A host that was off while its certificate ran out comes to the join
port too: the ground is that it still holds the old key.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from manager.ca.authority import Authority, Seal
from manager.ca.token import JoinToken, Limiter, source_of, token_of
from manager.store.base import Guard, Put, Store, Txn
from manager.store.mirror import Mirror
from manager.store.records import encode, key_for
from shoal import tls
from shoal.clock import Clock
from shoal.errors import InvalidArgument, PermissionDenied, Unavailable, Unsupported
from shoal.ids import new_id
from shoal.model.base import Meta
from shoal.model.cluster import Cluster
from shoal.model.node import Availability, Node, NodeDescription, NodeSpec, NodeState, NodeStatus, Role
from shoal.names import printable
from shoal.v1 import ca_pb2, ca_pb2_grpc, types_pb2

log = logging.getLogger(__name__)
_MAX_HOSTNAME = 253


class JoinServicer(ca_pb2_grpc.JoinServiceServicer):
    """`managers` says where a node may dial a manager ("ADDR:PORT")."""

    def __init__(
        self,
        *,
        store: Store,
        mirror: Mirror,
        authority: Authority,
        seal: Seal,
        clock: Clock,
        managers: Callable[[], Sequence[str]],
        limiter: Limiter | None = None,
    ) -> None:
        self._store = store
        self._mirror = mirror
        self._authority = authority
        self._seal = seal
        self._clock = clock
        self._managers = managers
        self._limiter = limiter or Limiter()

    async def IssueCertificate(
        self, request: ca_pb2.IssueCertificateRequest, context: Any
    ) -> ca_pb2.IssueCertificateResponse:
        cluster = _cluster(self._mirror)
        role = self._role_of(request.token, source_of(context.peer()), cluster)
        if role is Role.MANAGER:
            raise Unsupported(
                "this cluster keeps its state in an embedded SQLite store, which has one manager",
                hint="join as a worker, with the token from 'shoal swarm join-token worker'",
            )
        node = self._new_node(request, role)
        certificate_pem = self._authority.issue(
            request.csr_pem,
            node_id=node.meta.id,
            cluster_id=cluster.meta.id,
            role=role,
            life_ns=cluster.spec.certificate_life_ns,
            now_ns=self._clock.now_ns(),
        )
        key = key_for(node)
        revision = await self._store.txn(Txn((Guard(key, 0),), (Put(key, encode(node)),)))
        # The node's first session must find its record.
        await self._mirror.reached(revision)
        log.info("node joined id=%s hostname=%s from=%s", node.meta.id, node.description.hostname, context.peer())
        return ca_pb2.IssueCertificateResponse(
            node_id=node.meta.id,
            cluster_id=cluster.meta.id,
            role=types_pb2.ROLE_WORKER,
            certificate_pem=certificate_pem,
            root_ca_pem=self._authority.root_ca_pem,
            managers=list(self._managers()),
        )

    async def RestoreCertificate(
        self, request: ca_pb2.RestoreCertificateRequest, context: Any
    ) -> ca_pb2.RestoreCertificateResponse:
        cluster = _cluster(self._mirror)
        source, now = source_of(context.peer()), self._clock.monotonic()
        self._limiter.check(source, now)
        try:
            peer, until = tls.check_restore(
                request.certificate_pem, cluster.root_ca_pem, request.csr_pem, request.signature
            )
        except InvalidArgument:
            self._limiter.wrong(source, now)
            raise
        ago_s = self._clock.now_ns() / 1e9 - until.timestamp()
        grace_s = cluster.spec.certificate_grace_ns / 1e9
        if ago_s > grace_s:
            raise PermissionDenied(
                f"the certificate of node {peer.node_id} ran out more than {grace_s / 3600:g} hours ago",
                hint="leave the cluster there and join again with a token",
            )
        node = _member(self._mirror, peer, cluster)
        log.info("certificate restored node=%s from=%s", node.meta.id, context.peer())
        return ca_pb2.RestoreCertificateResponse(
            certificate_pem=_renewed(self._authority, node, cluster, request.csr_pem, self._clock),
            root_ca_pem=self._authority.root_ca_pem,
        )

    def _role_of(self, text: str, source: str, cluster: Cluster) -> Role:
        """The role that the token gives. Raises PermissionDenied, with one message, for any that gives none."""
        token = JoinToken.parse(text)
        now = self._clock.monotonic()
        self._limiter.check(source, now)
        # Both are compared whatever the first says: the answer's delay is the same for all wrong tokens.
        right = [role for role in Role if token_of(cluster, role, self._seal).same(token)]
        if not right:
            self._limiter.wrong(source, now)
            log.warning("wrong join token from=%s", source)
            raise PermissionDenied(
                "the join token is not valid for this cluster",
                hint="get the present one with 'shoal swarm join-token worker' on a manager",
            )
        return right[0]

    def _new_node(self, request: ca_pb2.IssueCertificateRequest, role: Role) -> Node:
        if request.availability not in (0, *Availability):
            raise InvalidArgument(f"availability {request.availability} is not active, pause or drain")
        now_ns = self._clock.now_ns()
        return Node(
            meta=Meta(id=new_id(), created_at_ns=now_ns, updated_at_ns=now_ns),
            spec=NodeSpec(role, Availability(request.availability or Availability.ACTIVE)),
            description=NodeDescription(hostname=printable(request.hostname)[:_MAX_HOSTNAME]),
            status=NodeStatus(NodeState.UNKNOWN, "joined; its agent has not called yet", now_ns),
        )


class CertificateServicer(ca_pb2_grpc.CertificateServiceServicer):
    """Renewal for whoever is a member still."""

    def __init__(self, *, mirror: Mirror, authority: Authority, clock: Clock) -> None:
        self._mirror = mirror
        self._authority = authority
        self._clock = clock

    async def RenewCertificate(
        self, request: ca_pb2.RenewCertificateRequest, context: Any
    ) -> ca_pb2.RenewCertificateResponse:
        peer = tls.peer_of(context)
        if peer is None:
            raise InvalidArgument(
                "a certificate is renewed over mutual TLS", hint="dial the manager's port, not its socket"
            )
        cluster = _cluster(self._mirror)
        node = _member(self._mirror, peer, cluster)
        certificate_pem = _renewed(self._authority, node, cluster, request.csr_pem, self._clock)
        log.info("certificate renewed node=%s role=%s", node.meta.id, node.spec.role.name.lower())
        return ca_pb2.RenewCertificateResponse(certificate_pem=certificate_pem, root_ca_pem=self._authority.root_ca_pem)


def _member(mirror: Mirror, peer: tls.Peer, cluster: Cluster) -> Node:
    """The record of who calls. Raises PermissionDenied for a node that was removed."""
    node = mirror.nodes.get(peer.node_id)
    if node is None or peer.cluster_id != cluster.meta.id:
        raise PermissionDenied(
            f"node {peer.node_id} is not a member of this cluster any more", hint="join again with a token"
        )
    return node


def _renewed(authority: Authority, node: Node, cluster: Cluster, csr_pem: str, clock: Clock) -> str:
    return authority.issue(
        csr_pem,
        node_id=node.meta.id,
        cluster_id=cluster.meta.id,
        role=node.spec.role,
        life_ns=cluster.spec.certificate_life_ns,
        now_ns=clock.now_ns(),
    )


def _cluster(mirror: Mirror) -> Cluster:
    if mirror.cluster is None:
        raise Unavailable("the cluster is not set up yet", hint="try again in a moment")
    return mirror.cluster
