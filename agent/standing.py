"""Standing: how this host stands to a cluster, as `info` shows it, and what it must remember of its membership."""

from __future__ import annotations

import enum

import msgspec

from agent.etcd import MemberSettings
from shoal.model.access import StoreAccess
from shoal.model.cluster import ClusterSpec
from shoal.model.node import Availability, Role
from shoal.settings import MANAGER_PORT, host_port

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
    """A cluster that was made here: what its founder tells others."""

    node_id: str
    worker_token: str
    manager_address: str
    unlock_key: str = ""


class Said(msgspec.Struct, frozen=True):
    """What the manager of this host says: its version, empty where there is none, and what is wrong in the cluster."""

    version: str = ""
    warnings: tuple[str, ...] = ()


class ManagerSettings(msgspec.Struct, frozen=True):
    """How the manager process of this host is started, each time. `spec` has only what differs from the defaults."""

    listen: str
    advertise: str
    node_name: str
    availability: Availability = Availability.ACTIVE
    spec: ClusterSpec = ClusterSpec()
    # Whether it makes a cluster where there is none; not where one was brought back, or is joined.
    founds: bool = True
    store: StoreAccess = StoreAccess()
    # Where its host runs a member of the managers' own etcd: who was in it when this one came, as etcd wants it.
    initial_cluster: str = ""

    def argv(self) -> list[str]:
        """The arguments that depend on these settings, but for the store's; `--init` on an initialised directory just
        serves."""
        words = ["--listen", self.listen, "--advertise", self.advertise]
        if not self.founds:
            return words
        words += ["--init", "--node-name", self.node_name]
        differing = {
            field: value for field, value in msgspec.structs.asdict(self.spec).items() if value != _DEFAULTS[field]
        }
        if differing:
            words += ["--spec-json", msgspec.json.encode(differing).decode()]
        if self.availability is not Availability.ACTIVE:
            words += ["--availability", self.availability.name.lower()]
        return words


_DEFAULTS = msgspec.structs.asdict(ClusterSpec())


def member_settings(settings: ManagerSettings) -> MemberSettings:
    """How the member of etcd beside the manager is started. Members are named after where they are."""
    address, _ = host_port(settings.advertise, MANAGER_PORT)
    peers = [each.partition("=") for each in filter(None, settings.initial_cluster.split(","))]
    return MemberSettings(
        name=address,
        address=address,
        # Enough of a name: members of another cluster do not get through TLS.
        cluster_id="shoal",
        peers=tuple((name, url) for name, _, url in peers),
        joins=bool(peers),
    )
