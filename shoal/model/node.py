"""Node: a host that is a member of the cluster."""

from __future__ import annotations

import enum

from shoal.model.base import Meta, Resources, Value


class Role(enum.IntEnum):
    WORKER = 1
    MANAGER = 2


class Availability(enum.IntEnum):
    ACTIVE = 1
    PAUSE = 2
    DRAIN = 3


class NodeState(enum.IntEnum):
    UNKNOWN = 1
    DOWN = 2
    READY = 3


class NodeSpec(Value, frozen=True):
    """What the operator wants of a node."""

    role: Role = Role.WORKER
    availability: Availability = Availability.ACTIVE
    labels: dict[str, str] = {}


class CertificateInfo(Value, frozen=True):
    """What a node's present certificate says: which root signed it (its authority key identifier), over which key (the
    SHA-256 of the public half), and when it runs out."""

    issuer_key: str = ""
    key: str = ""
    not_after_ns: int = 0


class NodeDescription(Value, frozen=True):
    """What its agent says of a host. `address` is where other hosts reach it, without a port."""

    hostname: str = ""
    os: str = ""
    architecture: str = ""
    kernel: str = ""
    agent_version: str = ""
    resources: Resources = Resources()
    engine_labels: dict[str, str] = {}
    address: str = ""
    certificate: CertificateInfo = CertificateInfo()


class NodeStatus(Value, frozen=True):
    """Written by the dispatcher that holds the node's session; by the leader when none does. `manager_id` is the node
    of the manager that holds it, or held it last; empty for a node that is DOWN or has never called."""

    state: NodeState = NodeState.UNKNOWN
    message: str = ""
    since_ns: int = 0
    manager_id: str = ""


class ManagerStatus(Value, frozen=True):
    """What a node is as a manager, empty where it is none: `address` ("ADDR:PORT") is where others reach it, written
    by itself; `member_id` is its member's in the managers' own etcd, in hex, empty without one."""

    address: str = ""
    member_id: str = ""


class Node(Value, frozen=True):
    meta: Meta = Meta()
    spec: NodeSpec = NodeSpec()
    description: NodeDescription = NodeDescription()
    status: NodeStatus = NodeStatus()
    manager: ManagerStatus = ManagerStatus()
