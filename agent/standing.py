"""Standing: how this host stands to a cluster, as `info` shows it, and what it must remember of its membership."""

from __future__ import annotations

import enum

import msgspec

from shoal.model.cluster import ClusterSpec
from shoal.model.node import Availability, Role

NOT_A_MEMBER = "This node is not part of a swarm"


class State(enum.Enum):
    """docker's words: PENDING until the first session of this agent stands."""

    INACTIVE = "inactive"
    PENDING = "pending"
    ACTIVE = "active"
    ERROR = "error"


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


class ManagerSettings(msgspec.Struct, frozen=True):
    """How the manager process of this host is started, each time. `spec` has only what differs from the defaults."""

    listen: str
    advertise: str
    node_name: str
    availability: Availability = Availability.ACTIVE
    spec: ClusterSpec = ClusterSpec()
    # Whether it makes a cluster where there is none; not where one was brought back.
    founds: bool = True

    def argv(self) -> list[str]:
        """The arguments that depend on these settings; `--init` on an initialised directory just serves."""
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
