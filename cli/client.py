"""The connection to one daemon: dial what was chosen, speak RPC, explain what goes wrong with the link.

An agent on this host is called on lanes (`cli/lane.py`); gRPC is imported for all others (`cli/channel.py`) and for an
agent that has no lanes, TLS only for `host:2377`: they are most of a client's start. A local socket is tried first by
hand, because its errno says more than gRPC does.
"""

from __future__ import annotations

import copy
import errno
import socket
from types import TracebackType
from typing import TYPE_CHECKING

from cli.endpoint import Endpoint, Selection, choose
from cli.grammar import beforehand
from shoal.errors import InvalidArgument, PermissionDenied, Unavailable
from shoal.lane import beside

if TYPE_CHECKING:
    from cli.calls import Calls
    from cli.carrier import Carrier
    from cli.tunnel import Tunnel
    from shoal.tls import Identity
    from shoal.v1.build_pb2_grpc import BuildServiceAsyncStub
    from shoal.v1.control_pb2_grpc import ControlServiceAsyncStub
    from shoal.v1.engine_pb2_grpc import (
        ContainerServiceAsyncStub,
        ImageServiceAsyncStub,
        NetworkServiceAsyncStub,
        SystemServiceAsyncStub,
        VolumeServiceAsyncStub,
    )
    from shoal.v1.swarm_pb2_grpc import SwarmServiceAsyncStub


class Client:
    """One daemon's services, as stubs whose calls raise ShoalError. Use it as an async context manager."""

    def __init__(self, selection: Selection) -> None:
        self.selection = selection
        self.endpoint: Endpoint | None = None
        self._tunnel: Tunnel | None = None
        self._calls: Calls | None = None

    async def __aenter__(self) -> Client:
        with beforehand():
            endpoint = self.endpoint = choose(self.selection)
        metadata = [("shoal-node", self.selection.node)] if self.selection.node else []
        carrier = lanes(endpoint) if endpoint.kind == "unix" else None
        from cli.calls import Calls

        self._calls = Calls(carrier or await self._channel(endpoint), metadata=metadata, unreachable=self._unreachable)
        return self

    async def _channel(self, endpoint: Endpoint) -> Carrier:
        if endpoint.kind == "ssh":
            from cli.tunnel import Tunnel  # asyncio's subprocesses are for ssh alone

            self._tunnel = await Tunnel.open(endpoint)
            target = f"unix:{self._tunnel.socket}"
        elif endpoint.kind == "unix":
            knock(endpoint)
            target = f"unix:{endpoint.path}"
        else:
            target = await _target(endpoint)
        identity = _identity(endpoint) if endpoint.kind == "tcp" else None
        from cli.channel import Channel

        return Channel(target, identity)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._calls is not None:
            await self._calls.close()
        if self._tunnel is not None:
            await self._tunnel.close()

    @property
    def containers(self) -> ContainerServiceAsyncStub:
        return self.calls.containers()

    @property
    def images(self) -> ImageServiceAsyncStub:
        return self.calls.images()

    @property
    def builds(self) -> BuildServiceAsyncStub:
        return self.calls.builds()

    @property
    def networks(self) -> NetworkServiceAsyncStub:
        return self.calls.networks()

    @property
    def volumes(self) -> VolumeServiceAsyncStub:
        return self.calls.volumes()

    @property
    def system(self) -> SystemServiceAsyncStub:
        return self.calls.system()

    @property
    def swarm(self) -> SwarmServiceAsyncStub:
        return self.calls.swarm()

    @property
    def control(self) -> ControlServiceAsyncStub:
        return self.calls.control()

    def on(self, node: str) -> Client:
        """The same connection, for what is asked of `node`; this one stays the one to close."""
        other = copy.copy(self)
        other._calls = self.calls.at(node)
        return other

    @property
    def calls(self) -> Calls:
        assert self._calls is not None, "the client is not open"
        return self._calls

    def _unreachable(self, why: str) -> Unavailable:
        """The error of a call that found nobody; `why` is the carrier's."""
        assert self.endpoint is not None
        if self._tunnel is not None and self._tunnel.said():
            why = self._tunnel.said()
        return unreachable(self.endpoint, why)


def unreachable(endpoint: Endpoint, why: str) -> Unavailable:
    """That nobody answers at `endpoint`, with what to do about it."""
    if endpoint.kind == "unix":
        return Unavailable(
            f"Cannot connect to the Shoal agent at {endpoint.host}. Is it running?",
            hint="start it with 'systemctl start shoal-agent', or run 'shoal-agent' as root",
        )
    whom = "Shoal agent" if endpoint.kind == "ssh" else "Shoal manager"
    return Unavailable(f"Cannot connect to the {whom} at {endpoint.host}: {why}", hint="see that it runs there")


def lanes(endpoint: Endpoint) -> Carrier | None:
    """The lanes of the agent at a local socket; None where it has none, or none for us."""
    from cli.lane import Lanes

    try:
        return Lanes(beside(endpoint.path))
    except OSError:  # whatever it is, `knock` finds out what is wrong with the socket itself
        return None


def knock(endpoint: Endpoint) -> None:
    """See that somebody listens on a local socket; raises Unavailable or PermissionDenied."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(5)
        try:
            probe.connect(endpoint.path)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM):
                denied = PermissionDenied(
                    f"permission denied while connecting to the Shoal agent at {endpoint.host}", hint="run it as root"
                )
                denied.run_code = 126  # docker's `run` reads it as that of a command
                raise denied from error
            raise unreachable(endpoint, str(error)) from error


def _identity(endpoint: Endpoint) -> Identity:
    """The client certificate for a manager: the files that were named, else this node's own."""
    from pathlib import Path

    from shoal.settings import Paths
    from shoal.tls import Identity

    tls = endpoint.tls
    if not any(tls):
        own = Identity.load(Paths().identity)
        if own is None:
            raise InvalidArgument(
                f"{endpoint.host} asks for a certificate of the cluster, and this host has none",
                hint="give --tlscacert, --tlscert and --tlskey, or use ssh://",
            )
        return own
    if not all(tls):
        raise InvalidArgument("--tlscacert, --tlscert and --tlskey go together", hint="give all three")
    pem = {}
    for flag, name in zip(("--tlscacert", "--tlscert", "--tlskey"), tls, strict=True):
        try:
            pem[flag] = Path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidArgument(f"{flag} {name} cannot be read: {error}") from error
    return Identity(pem["--tlscert"], pem["--tlskey"], pem["--tlscacert"])


async def _target(endpoint: Endpoint) -> str:
    """The managers as gRPC takes them: of several it uses the first that it can connect to, and tries the next one
    beside one that does not answer within a moment."""
    if len(endpoint.managers) == 1:
        ((address, port),) = endpoint.managers
        return f"{_bracketed(address)}:{port}"
    import asyncio

    found, why = [], ""
    for address, port in endpoint.managers:
        try:
            infos = await asyncio.get_running_loop().getaddrinfo(address, port, type=socket.SOCK_STREAM)
        except OSError as error:
            why = f"{address}: {error.strerror or error}"
        else:
            found += [(str(info[4][0]), port) for info in infos]
    if not found:
        raise unreachable(endpoint, why)
    if all(":" not in address for address, _ in found):
        return "ipv4:" + ",".join(f"{address}:{port}" for address, port in found)
    # One list has one family; an IPv4 address has a form there too (RFC 4291, 2.5.5.2).
    mapped = ((address if ":" in address else f"::ffff:{address}", port) for address, port in found)
    return "ipv6:" + ",".join(f"[{address}]:{port}" for address, port in mapped)


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
