"""Founding: the cluster's one record, its root of trust and this manager's own identity, made once or found again.

Whatever it breaks off at, the next start finds either nothing and begins anew, or a cluster and goes on: the record
and the manager's node are one transaction, the seal lies on disk before it, the identity after it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import msgspec

from manager.ca.authority import CA_KEY, Authority, Seal
from manager.ca.lock import relocked
from manager.ca.signer import authority_of
from manager.ca.token import sealed_secret
from manager.store.base import Guard, Put, Store, Txn
from manager.store.mirror import Mirror
from manager.store.records import encode, key_for
from shoal.clock import Clock
from shoal.errors import Conflict, NotFound, ShoalError
from shoal.files import read_optional
from shoal.ids import new_id
from shoal.model.base import Meta
from shoal.model.cluster import Cluster, ClusterSpec
from shoal.model.node import Availability, Node, NodeDescription, NodeSpec, NodeState, NodeStatus, Role
from shoal.names import printable
from shoal.settings import MANAGER_PORT, host_port
from shoal.tls import Identity

log = logging.getLogger(__name__)

SEAL_FILE = "seal.key"
FOUNDING_FILE = "founding"
_LOOK_S = 10.0


class Founder(msgspec.Struct, frozen=True):
    """What a new cluster begins with."""

    node_name: str
    availability: Availability
    spec: ClusterSpec


class Founding(msgspec.Struct, frozen=True):
    """The records that a cluster begins with."""

    cluster: Cluster
    node: Node


class Roots(msgspec.Struct, frozen=True):
    """What a manager can sign and open."""

    authority: Authority
    seal: Seal


async def roots_of(
    store: Store, mirror: Mirror, data_dir: Path, founder: Founder | None, clock: Clock, *, seal: Seal | None = None
) -> Roots:
    """Those of the cluster in the store, which `founder` makes where there is none. `seal` is there if it had to be
    unlocked.

    Raises NotFound where there is none and no founder, or when the seal is missing.
    """
    cluster = mirror.cluster
    if cluster is not None:
        if store.kind != "sqlite" and founder is not None and not (data_dir / SEAL_FILE).exists():
            raise Conflict("the store already holds a cluster", hint="join that, or choose another --etcd-prefix")
        return opened(cluster, seal or Seal.load(data_dir / SEAL_FILE))
    if founder is None:
        raise NotFound(f"there is no cluster in {data_dir}", hint="make one with --init")
    seal = Seal.create(data_dir / SEAL_FILE)
    founding = prepared(data_dir) or new_founding(seal, founder, clock.now_ns())
    records = (founding.cluster, founding.node)
    guards = tuple(Guard(key_for(each), 0) for each in records)
    await mirror.reached(await store.txn(Txn(guards, tuple(Put(key_for(each), encode(each)) for each in records))))
    (data_dir / FOUNDING_FILE).unlink(missing_ok=True)
    log.info("cluster founded id=%s node=%s", founding.cluster.meta.id, founding.node.meta.id)
    return opened(founding.cluster, seal)


def prepared(data_dir: Path) -> Founding | None:
    """What `bootstrap` made, until it is in the store."""
    kept = read_optional(data_dir / FOUNDING_FILE)
    return msgspec.msgpack.decode(kept, type=Founding) if kept is not None else None


def new_founding(seal: Seal, founder: Founder, now_ns: int) -> Founding:
    """A new cluster, and its first node."""
    meta = Meta(id=new_id(), created_at_ns=now_ns, updated_at_ns=now_ns)
    authority = Authority.create(meta.id, now_ns)
    cluster = Cluster(
        meta=meta,
        spec=founder.spec,
        root_ca_pem=authority.root_ca_pem,
        sealed_ca_key=seal.seal(authority.key_pem, CA_KEY),
        sealed_worker_secret=sealed_secret(seal, Role.WORKER),
        sealed_manager_secret=sealed_secret(seal, Role.MANAGER),
    )
    return Founding(relocked(cluster, seal), first_node(founder.node_name, founder.availability, now_ns))


def opened(cluster: Cluster, seal: Seal) -> Roots:
    """Raises InvalidArgument when the two do not belong together."""
    return Roots(authority_of(cluster, seal), seal)


def first_node(hostname: str, availability: Availability, now_ns: int) -> Node:
    """The record of a host that becomes a cluster's only manager."""
    return Node(
        meta=Meta(id=new_id(), created_at_ns=now_ns, updated_at_ns=now_ns),
        spec=NodeSpec(Role.MANAGER, availability),
        description=NodeDescription(hostname=printable(hostname)),
        status=NodeStatus(NodeState.UNKNOWN, "its agent has not called yet", now_ns),
    )


def own_identity(mirror: Mirror, authority: Callable[[], Authority], folder: Path, clock: Clock) -> Identity:
    """Who this manager is, kept in `folder`; issued where there is none, or it runs out and was not renewed in time.

    Raises Conflict when the one there is another cluster's.
    """
    cluster = mirror.cluster
    assert cluster is not None
    identity = Identity.load(folder)
    if identity is not None and identity.cluster_id != cluster.meta.id:
        raise Conflict(f"{folder} holds the identity of another cluster ({identity.cluster_id})")
    now_ns = clock.now_ns()
    if identity is not None and not overdue(identity, now_ns):
        return identity
    node_id = identity.node_id if identity is not None else _only_manager(mirror)
    identity = issued(authority(), cluster, node_id, _address(mirror, node_id), now_ns)
    identity.save(folder)
    return identity


def issued(authority: Authority, cluster: Cluster, node_id: str, address: str, now_ns: int) -> Identity:
    """A new identity for the manager whose host is reached at `address`."""
    return authority.new_identity(
        node_id=node_id,
        cluster_id=cluster.meta.id,
        role=Role.MANAGER,
        life_ns=cluster.spec.certificate_life_ns,
        now_ns=now_ns,
        address=address,
    )


def _address(mirror: Mirror, node_id: str) -> str:
    """Where the host of a manager is reached; empty while its record does not say."""
    node = mirror.nodes.get(node_id)
    if node is None:
        return ""
    return node.description.address or host_port(node.manager.address, MANAGER_PORT)[0]


async def keep_identity(mirror: Mirror, authority: Callable[[], Authority], folder: Path, clock: Clock) -> None:
    """Issue it anew, for as long as the manager lives, where the agent of this host did not renew it in time: it was
    dead, or the whole host slept. Where there is none, this host is leaving."""
    while True:
        await clock.sleep(_LOOK_S)
        try:
            identity = Identity.load(folder)
            if identity is not None and overdue(identity, clock.now_ns()):
                own_identity(mirror, authority, folder, clock)
                log.warning("this node's certificate was not renewed in time; issued another")
        except (ShoalError, OSError) as error:
            log.error("this node's certificate cannot be looked after: %s", error)  # a full disk is no bug


def overdue(identity: Identity, now_ns: int) -> bool:
    """Whether so little of its life is left that its agent must have failed to renew it (`agent/certificate.py`); or it
    has not begun, since it was issued by a clock that was ahead."""
    begin, end = identity.issued_at.timestamp(), identity.not_after.timestamp()
    return now_ns / 1e9 > end - (end - begin) / 6 or not identity.valid_at(now_ns)


def _only_manager(mirror: Mirror) -> str:
    """Without an identity, this is the manager that founded the cluster."""
    managers = [node for node in mirror.nodes.values() if node.spec.role is Role.MANAGER]
    if not managers:
        raise NotFound("the store has no node that is a manager", hint="restore it from a backup")
    return min(managers, key=lambda node: node.meta.created_at_ns).meta.id


def with_former(identity: Identity, mirror: Mirror) -> Identity:
    """What a manager's port shows, and whom it lets through TLS: users too whose certificate is of a root that was
    replaced. They are known by their key; nodes are not let in by that (`api/permission`)."""
    former = mirror.cluster.former_roots if mirror.cluster is not None else ()
    roots = identity.root_ca_pem + "".join(each.root_ca_pem for each in former)
    return msgspec.structs.replace(identity, root_ca_pem=roots)


class IdentityFile:
    """The identity in a folder, as it is now: the agent of this host renews it."""

    def __init__(self, folder: Path, identity: Identity) -> None:
        self._folder = folder
        self._stamp = self._look()
        self._identity = identity

    def current(self) -> Identity:
        stamp = self._look()
        if stamp != self._stamp:
            self._identity = Identity.load(self._folder) or self._identity
            self._stamp = stamp
        return self._identity

    def _look(self) -> tuple[int, int]:
        """Which file it is: renewal replaces it."""
        try:
            found = (self._folder / "identity.json").stat()
        except FileNotFoundError:
            return (0, 0)
        return (found.st_ino, found.st_mtime_ns)
