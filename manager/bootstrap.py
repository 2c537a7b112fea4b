"""Bootstrap: what an etcd of the managers' own needs of a manager before there is a store to read.

The first manager makes the cluster's roots and its own identity, and etcd begins with that; what becomes of the roots
once it runs is `founding`'s business. All managers keep a copy of the cluster's record (whose secrets are sealed): when
all hosts were off for longer than a certificate lives, each gives itself another, and etcd, which only managers get
into, can begin.
"""

from __future__ import annotations

import logging

import msgspec

from manager.ca.authority import Seal
from manager.founding import FOUNDING_FILE, SEAL_FILE, Founder, issued, new_founding, opened, overdue, prepared
from manager.settings import Settings
from shoal import codec
from shoal.files import read_optional, write_atomic
from shoal.model.cluster import Cluster
from shoal.settings import MANAGER_PORT, host_port
from shoal.tls import Identity

log = logging.getLogger(__name__)

COPY_FILE = "cluster"


def begin(settings: Settings, founder: Founder, now_ns: int) -> None:
    """Make what a new cluster begins with. Idempotent, whatever it breaks off at; the identity comes last."""
    if Identity.load(settings.identity_dir) is not None:
        return
    seal = Seal.create(settings.data_dir / SEAL_FILE)
    founding = prepared(settings.data_dir)
    if founding is None:
        founding = new_founding(seal, founder, now_ns)
        write_atomic(settings.data_dir / FOUNDING_FILE, msgspec.msgpack.encode(founding))
    roots = opened(founding.cluster, seal)
    identity = issued(roots.authority, founding.cluster, founding.node.meta.id, _address(settings), now_ns)
    identity.save(settings.identity_dir)


def revive(settings: Settings, now_ns: int, seal: Seal | None) -> None:
    """Give this manager a new certificate where its own ran out, or is about to, while nobody could renew it. `seal` is
    there if it had to be unlocked."""
    identity = Identity.load(settings.identity_dir)
    copy = read_optional(settings.data_dir / COPY_FILE)
    if identity is None or copy is None or not overdue(identity, now_ns):
        return
    cluster = codec.unpack(Cluster, copy)
    roots = opened(cluster, seal or Seal.load(settings.data_dir / SEAL_FILE))
    issued(roots.authority, cluster, identity.node_id, _address(settings), now_ns).save(settings.identity_dir)
    log.warning("this node's certificate ran out at %s; issued another", identity.not_after.isoformat())


def keep_copy(settings: Settings, cluster: Cluster) -> None:
    """Of the cluster's record, as it is now."""
    data = codec.pack(cluster)
    if read_optional(settings.data_dir / COPY_FILE) != data:
        write_atomic(settings.data_dir / COPY_FILE, data)


def _address(settings: Settings) -> str:
    return host_port(settings.advertise, MANAGER_PORT)[0]
