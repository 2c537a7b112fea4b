"""Where the resolver's answers come from: the zone files of this host, and the nameservers of its resolv.conf.

Both are looked at before every answer and read again when they were replaced. Standard library and siblings only.
"""

from __future__ import annotations

import socket
from pathlib import Path

from agent.network.dns import zone
from agent.network.dns.zone import Zone

PORT = 53
UPSTREAM_TIMEOUT_S = 2.0
_MOST_SERVERS = 3


class Zones:
    """The zone files, each read again when it was replaced. Used by several threads: values are only replaced."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[str, tuple[tuple[int, int, int], Zone]] = {}

    def gateways(self) -> set[str]:
        """Raises FileNotFoundError when the folder is gone."""
        return {path.name.removesuffix(".json") for path in self._folder.iterdir() if path.name[0] != "."}

    def get(self, gateway: str) -> Zone | None:
        path = self._folder / f"{gateway}.json"
        try:
            found = path.stat()
            identity = (found.st_ino, found.st_mtime_ns, found.st_size)
            known = self._read.get(gateway)
            if known is None or known[0] != identity:
                known = self._read[gateway] = (identity, zone.load(path.read_bytes()))
        except (OSError, ValueError):
            return None
        return known[1]

    def for_client(self, gateway: str, client: str) -> list[Zone]:
        """The zones that `client` may look into when it asks `gateway`, those of its own links first."""
        own = self.get(gateway)
        if own is None:
            return []
        zones = {gateway: own}
        for other in own.clients.get(client, ()):
            if (found := self.get(other)) is not None:
                zones[other] = found
        links = own.links.get(client, {})
        return [*(zones[at].linked(links[at]) for at in links if at in zones), *zones.values()]


class Upstreams:
    """The host's nameservers, read again when its resolv.conf changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._identity: tuple[int, int] | None = None
        self._servers: list[str] = []

    def get(self, own: set[str]) -> list[str]:
        """Without our own addresses, which would ask us again."""
        try:
            found = self._path.stat()
            if self._identity != (found.st_ino, found.st_mtime_ns):
                self._identity = (found.st_ino, found.st_mtime_ns)
                words = [line.split() for line in self._path.read_text(errors="replace").splitlines()]
                self._servers = [line[1] for line in words if len(line) > 1 and line[0] == "nameserver"]
        except OSError:
            return []
        return [server for server in self._servers if server not in own][:_MOST_SERVERS]


def connect(server: str, kind: socket.SocketKind) -> socket.socket:
    """A socket to a nameserver; connected, so that the kernel drops what comes from anybody else."""
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    upstream = socket.socket(family, kind)
    try:
        upstream.settimeout(UPSTREAM_TIMEOUT_S)
        upstream.connect((server, PORT))
    except OSError:
        upstream.close()
        raise
    return upstream
