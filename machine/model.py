"""Machine: a host that is reached over SSH and that this computer provisions; what is wanted of it, as values.

`inventory` reads them from a file, `record` keeps them, `provision` compares them with what a host is.
"""

from __future__ import annotations

import enum

import msgspec

SSH_PORT = 22


class Role(enum.Enum):
    """What the machine is to be in the cluster."""

    WORKER = "worker"
    MANAGER = "manager"


class Ssh(msgspec.Struct, frozen=True):
    """How a machine is reached; what is empty is left to the user's ssh_config, and then to ssh's defaults.

    `host_key` pins the machine's key by its fingerprint (SHA256:…), `jump` is a chain as ProxyJump has it.
    """

    user: str = ""
    port: int = 0
    identities: tuple[str, ...] = ()
    jump: str = ""
    host_key: str = ""


class Machine(msgspec.Struct, frozen=True):
    """One host as it is wanted. `advertise` is where other nodes reach it; empty: its address."""

    name: str
    address: str
    role: Role = Role.WORKER
    labels: dict[str, str] = {}
    advertise: str = ""
    ssh: Ssh = Ssh()

    @property
    def reached_at(self) -> str:
        """The address by which other nodes reach it."""
        return self.advertise or self.address


class Order(msgspec.Struct, frozen=True):
    """A host that a driver is to make, by its options."""

    driver: str
    options: dict[str, str] = {}


class Inventory(msgspec.Struct, frozen=True):
    """All machines of one cluster, in the order of the file; the first manager founds it.

    `store` is where the managers keep their state: sqlite for one, etcd for several. `orders` has the machines whose
    hosts drivers make; until `machine/order` has placed them they have no address.
    """

    machines: tuple[Machine, ...]
    store: str = "sqlite"
    orders: dict[str, Order] = {}

    @property
    def has_manager(self) -> bool:
        return any(each.role is Role.MANAGER for each in self.machines)

    @property
    def founder(self) -> Machine:
        return next(each for each in self.machines if each.role is Role.MANAGER)
