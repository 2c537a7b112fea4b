"""Standing: how this host stands to a cluster, as `info` shows it."""

from __future__ import annotations

import enum

import msgspec

from shoal.model.node import Role

NOT_A_MEMBER = "This node is not part of a swarm"


class State(enum.Enum):
    """docker's words: PENDING until the first session of this agent stands, LOCKED while its manager waits for its
    unlock key."""

    INACTIVE = "inactive"
    PENDING = "pending"
    ACTIVE = "active"
    ERROR = "error"
    LOCKED = "locked"


class Standing(msgspec.Struct, frozen=True):
    """`managers` are where they listen, "ADDR:PORT"; `error` is what is in the way of a session."""

    state: State = State.INACTIVE
    node_id: str = ""
    cluster_id: str = ""
    role: Role = Role.WORKER
    error: str = ""
    managers: tuple[str, ...] = ()
    address: str = ""


class Founded(msgspec.Struct, frozen=True):
    """A cluster that was made here: what its founder tells others. `locked`: its manager, which was one before, waits
    for its unlock key and tells nothing yet."""

    node_id: str
    worker_token: str
    manager_address: str
    unlock_key: str = ""
    locked: bool = False


class Said(msgspec.Struct, frozen=True):
    """What the manager of this host says: its version, empty where there is none, and what is wrong in the cluster."""

    version: str = ""
    warnings: tuple[str, ...] = ()
