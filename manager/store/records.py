"""Which noun stands under which key, and its stored form.

A record of kind "task" is at "/task/ID". Keys outside of KINDS (a leader's lease, a claimed name) are other
parts' own and no records.
"""

from __future__ import annotations

from typing import TypeAlias

from manager.store.base import Record
from manager.store.presence import Presence
from shoal import codec
from shoal.model.cluster import Cluster
from shoal.model.login import Login
from shoal.model.network import Lease, Network
from shoal.model.node import Node
from shoal.model.service import Service
from shoal.model.task import Task
from shoal.model.token import Token
from shoal.model.trust import Revocation
from shoal.model.user import User

Noun: TypeAlias = Cluster | Node | Service | Task | Network | Lease | Presence | Revocation | Token | User | Login

KINDS: dict[str, type[Noun]] = {
    "cluster": Cluster,
    "node": Node,
    "service": Service,
    "task": Task,
    "network": Network,
    "lease": Lease,
    # Bound to the lease of a manager, and gone with it: no part of what a backup keeps.
    "manager": Presence,
    "revocation": Revocation,
    "token": Token,
    "user": User,
    "login": Login,
}
_NAMES: dict[type[Noun], str] = {kind: name for name, kind in KINDS.items()}


# What its holder's lease keeps, and nobody else may bring back: who leads, which managers serve.
_PRESENCE = ("/leader", "/manager/")


def lasting(key: str) -> bool:
    """Whether what stands under `key` outlives the processes that wrote it."""
    return not key.startswith(_PRESENCE)


def prefix_of(kind: str) -> str:
    return f"/{kind}/"


def key_of(kind: str, id: str) -> str:
    return f"/{kind}/{id}"


def split(key: str) -> tuple[str, str] | None:
    """The kind and id in a key; None when it holds no record."""
    parts = key.split("/", 2)
    return (parts[1], parts[2]) if len(parts) == 3 and parts[1] in KINDS and parts[2] else None


def kind_of(value: Noun) -> str:
    return _NAMES[type(value)]


def key_for(value: Noun) -> str:
    return key_of(kind_of(value), value.meta.id)


def lease_id(network_id: str, node_id: str) -> str:
    """The id of the lease that a node has in a network."""
    return f"{network_id}.{node_id}"


def encode(value: Noun) -> bytes:
    return codec.pack(value)


def decode(record: Record) -> Noun:
    """The value at a record's key, with its `meta.version` being the record's revision."""
    return decode_value(record.key, record.value, record.mod_revision)


def decode_value(key: str, value: bytes, revision: int) -> Noun:
    found = split(key)
    if found is None:
        raise KeyError(key)
    return decode_as(found[0], value, revision)


def decode_as(kind: str, value: bytes, revision: int) -> Noun:
    """The same for who knows the kind already."""
    return codec.unpack(KINDS[kind], value, version=revision)
