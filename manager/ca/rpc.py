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

from manager.audit.ledger import Ledger
from manager.ca.admission import Ground, WrongToken, check, free_id, ground_of, joined_before, spent
from manager.ca.authority import Authority, Seal, key_of_request
from manager.ca.limiter import Limiter, source_of
from manager.ca.rotation import outlived, roots_known
from manager.ca.token import JoinToken
from manager.control.roster import check_shared
from manager.store import base
from manager.store.base import Guard, Put, Txn
from manager.store.mirror import Mirror
from manager.store.records import encode, key_for
from shoal import tls
from shoal.access import address_of
from shoal.clock import Clock
from shoal.errors import InvalidArgument, PermissionDenied, Unavailable
from shoal.model.audit import AuditEntry
from shoal.model.base import Meta
from shoal.model.cluster import Cluster
from shoal.model.node import Availability, CertificateInfo, Node, NodeDescription, NodeSpec, NodeState, NodeStatus, Role
from shoal.names import printable
from shoal.v1 import ca_pb2, ca_pb2_grpc, types_pb2

log = logging.getLogger(__name__)
_MAX_HOSTNAME = 253
# Hosts that come with one counted token at the same moment are let in one after the other.
_TRIES = 50
_RETRY_S = 0.02


class JoinServicer(ca_pb2_grpc.JoinServiceServicer):
    """`managers` says where a node may dial a manager ("ADDR:PORT"); `authority` is asked for each certificate."""

    def __init__(
        self,
        *,
        mirror: Mirror,
        authority: Callable[[], Authority],
        seal: Seal,
        clock: Clock,
        managers: Callable[[], Sequence[str]],
        ledger: Ledger,
        store_kind: str,
        limiter: Limiter | None = None,
    ) -> None:
        self._store_kind = store_kind
        self._mirror = mirror
        self._authority = authority
        self._seal = seal
        self._clock = clock
        self._managers = managers
        self._ledger = ledger
        self._limiter = limiter or Limiter()

    async def IssueCertificate(
        self, request: ca_pb2.IssueCertificateRequest, context: Any
    ) -> ca_pb2.IssueCertificateResponse:
        source = source_of(context.peer())
        key = key_of_request(request.csr_pem)
        node = None
        for _ in range(_TRIES):
            cluster = _cluster(self._mirror)
            ground = self._ground(request.token, source, cluster)
            if node := self._known(key, ground):
                break
            node = self._new_node(request, ground.role)
            try:
                line = _line(context, "swarm join", node, ground)
                revision = await self._ledger.write(_joining(node, ground, self._clock.now_ns()), line)
            except base.Conflict:
                node = None  # another host came with the same token, at this moment
                await self._clock.sleep(_RETRY_S)
            else:
                # The node's first session must find its record.
                await self._mirror.reached(revision)
                break
        if node is None:
            raise Unavailable("more hosts join with this token at once than can be counted", hint="try again")
        log.info("node joined id=%s hostname=%s from=%s", node.meta.id, node.description.hostname, context.peer())
        return self._issued(node, request.csr_pem)

    async def RestoreCertificate(
        self, request: ca_pb2.RestoreCertificateRequest, context: Any
    ) -> ca_pb2.RestoreCertificateResponse:
        cluster = _cluster(self._mirror)
        source, now = source_of(context.peer()), self._clock.monotonic()
        self._limiter.check(source, now)
        try:
            peer, old = tls.check_restore(
                request.certificate_pem, roots_known(cluster), request.csr_pem, request.signature
            )
        except InvalidArgument:
            self._limiter.wrong(source, now)
            raise
        ago_s = (self._clock.now_ns() - old.not_after_ns) / 1e9
        grace_s = cluster.spec.certificate_grace_ns / 1e9
        if ago_s > grace_s:
            raise PermissionDenied(
                f"the certificate of node {peer.node_id} ran out more than {grace_s / 3600:g} hours ago",
                hint="leave the cluster there and join again with a token",
            )
        node = _member(self._mirror, peer, cluster)
        if outlived(cluster, old) and old.key != node.description.certificate.key:
            # Whoever knows the key of a root that was replaced can sign what they like with it.
            raise PermissionDenied(
                f"the certificate of node {peer.node_id} is of a root that was replaced, and not the last it had",
                hint="leave the cluster there and join again with a token",
            )
        await self._ledger.note(_line(context, "node restore", node))
        log.info("certificate restored node=%s from=%s", node.meta.id, context.peer())
        return ca_pb2.RestoreCertificateResponse(
            certificate_pem=_renewed(self._authority(), node, cluster, request.csr_pem, self._clock),
            root_ca_pem=self._authority().trust_pem,
        )

    def _ground(self, text: str, source: str, cluster: Cluster) -> Ground:
        """Raises PermissionDenied for a token that nobody may join with, Exhausted for who guesses."""
        token = JoinToken.parse(text)
        now = self._clock.monotonic()
        self._limiter.check(source, now)
        try:
            ground = ground_of(self._mirror, cluster, self._seal, token)
        except WrongToken:
            self._limiter.wrong(source, now)
            log.warning("wrong join token from=%s", source)
            raise
        if ground.role is Role.MANAGER:
            check_shared(self._store_kind)
        return ground

    def _known(self, key: str, ground: Ground) -> Node | None:
        """The record of a join of the same host that broke off: no use is lost twice. Raises PermissionDenied where
        there is none and the token lets nobody else in."""
        node = joined_before(self._mirror, key)
        if ground.token is not None and (node is None or ground.token.revoked_at_ns):
            check(ground.token, self._clock.now_ns())
        return node

    def _new_node(self, request: ca_pb2.IssueCertificateRequest, role: Role) -> Node:
        key = key_of_request(request.csr_pem)
        if request.availability not in (0, *Availability):
            raise InvalidArgument(f"availability {request.availability} is not active, pause or drain")
        now_ns = self._clock.now_ns()
        return Node(
            meta=Meta(id=free_id(self._mirror, key), created_at_ns=now_ns, updated_at_ns=now_ns),
            spec=NodeSpec(role, Availability(request.availability or Availability.ACTIVE)),
            description=NodeDescription(
                hostname=printable(request.hostname)[:_MAX_HOSTNAME],
                certificate=CertificateInfo(key=key),
            ),
            status=NodeStatus(NodeState.UNKNOWN, "joined; its agent has not called yet", now_ns),
        )

    def _issued(self, node: Node, csr_pem: str) -> ca_pb2.IssueCertificateResponse:
        cluster = _cluster(self._mirror)
        return ca_pb2.IssueCertificateResponse(
            node_id=node.meta.id,
            cluster_id=cluster.meta.id,
            role=types_pb2.Role.Value(f"ROLE_{node.spec.role.name}"),
            certificate_pem=_renewed(self._authority(), node, cluster, csr_pem, self._clock),
            root_ca_pem=self._authority().trust_pem,
            managers=list(self._managers()),
        )


class CertificateServicer(ca_pb2_grpc.CertificateServiceServicer):
    """Renewal for whoever is a member still."""

    def __init__(self, *, mirror: Mirror, authority: Callable[[], Authority], clock: Clock) -> None:
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
        certificate_pem = _renewed(self._authority(), node, cluster, request.csr_pem, self._clock)
        log.info("certificate renewed node=%s role=%s", node.meta.id, node.spec.role.name.lower())
        return ca_pb2.RenewCertificateResponse(certificate_pem=certificate_pem, root_ca_pem=self._authority().trust_pem)


def _line(context: Any, verb: str, node: Node, ground: Ground | None = None) -> AuditEntry:
    """What the audit record tells of a host that came in, or back."""
    token = f" by token {ground.token.meta.id}" if ground is not None and ground.token is not None else ""
    role = node.spec.role.name.lower()
    return AuditEntry(
        actor=f"node {node.description.hostname} ({node.meta.id})",
        source=address_of(context.peer()),
        verb=verb,
        object=f"node {node.meta.id} {node.description.hostname} ({role}){token}",
        decision="allowed",
        outcome="done",
    )


def _joining(node: Node, ground: Ground, now_ns: int) -> Txn:
    """The new node, and one use less of the token that let it in: both or neither."""
    key = key_for(node)
    if ground.token is None:
        return Txn((Guard(key, 0),), (Put(key, encode(node)),))
    paid = spent(ground.token, now_ns)
    guards = (Guard(key, 0), Guard(key_for(paid), paid.meta.version))
    return Txn(guards, (Put(key, encode(node)), Put(key_for(paid), encode(paid))))


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
        address=node.description.address,
    )


def _cluster(mirror: Mirror) -> Cluster:
    if mirror.cluster is None:
        raise Unavailable("the cluster is not set up yet", hint="try again in a moment")
    return mirror.cluster
