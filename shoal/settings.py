"""Where things are: ports and paths, each with its reason.

| port | who listens | why it is its own port |
|---|---|---|
| 2377 | manager: control, dispatcher, renewal | mutual TLS: TLS itself refuses who is no member |
| 2378 | manager: join (its port + 1) | a joining host has no certificate, and gRPC cannot ask for one optionally |
| 2376 | agent: blobs for nodes, engine for managers | docker's port of an engine over TLS |
| 2379 | etcd of a manager's host: the managers | etcd's own, and only where they run it themselves |
| 2380 | etcd of a manager's host: the other members | likewise |
| 4789/udp | kernel: VXLAN | RFC 7348 |
"""

from __future__ import annotations

from pathlib import Path

import msgspec

MANAGER_PORT = 2377
ETCD_PREFIX = "/shoal"
JOIN_PORT_OFFSET = 1
AGENT_PORT = 2376
ETCD_CLIENT_PORT = 2379
ETCD_PEER_PORT = 2380
VXLAN_PORT = 4789

DATA_DIR = Path("/var/lib/shoal")
RUN_DIR = Path("/run/shoal")


class Paths(msgspec.Struct, frozen=True):
    """The files of one host. `data` survives a reboot, `run` does not."""

    data: Path = DATA_DIR
    run: Path = RUN_DIR

    @property
    def agent_socket(self) -> Path:
        return self.run / "shoal.sock"

    @property
    def manager_socket(self) -> Path:
        return self.run / "manager.sock"

    @property
    def keeper_socket(self) -> Path:
        return self.run / "keeper.sock"

    @property
    def keeper_state(self) -> Path:
        return self.run / "keeper"

    @property
    def network(self) -> Path:
        return self.run / "network"

    @property
    def identity(self) -> Path:
        return self.data / "identity"

    @property
    def joining_key(self) -> Path:
        return self.data / "joining.key"

    @property
    def manager_data(self) -> Path:
        return self.data / "manager"

    @property
    def etcd(self) -> Path:
        """All of this host's member of etcd: only where the managers run it themselves."""
        return self.data / "etcd"

    @property
    def seal(self) -> Path:
        """Opens what is sealed in the store; only managers have it."""
        return self.manager_data / "seal.key"

    @property
    def images(self) -> Path:
        return self.data / "images"

    @property
    def volumes(self) -> Path:
        return self.data / "volumes"

    @property
    def containers(self) -> Path:
        return self.data / "containers"

    @property
    def database(self) -> Path:
        return self.data / "agent.db"


def host_port(address: str, default_port: int) -> tuple[str, int]:
    """`ADDR` or `ADDR:PORT` as (address, port); IPv6 in brackets. Raises ValueError for a port that is none."""
    if address.startswith("["):
        host, _, rest = address[1:].partition("]")
        port = rest.removeprefix(":")
    elif address.count(":") == 1:
        host, _, port = address.partition(":")
    else:
        host, port = address, ""
    if not port:
        return host, default_port
    number = int(port)
    if not 0 < number < 65536:
        raise ValueError(f"port {number} is not between 1 and 65535")
    return host, number
