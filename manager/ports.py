"""Ports: where a manager listens: for members, over mutual TLS; for strangers who want to join, who have no certificate
yet; and for its own host, on a socket. `daemon` makes what stands behind them.

Whoever is let in by TLS still passes the gate; what a call changes or is refused, the recorder notes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import grpc
import grpc.aio
import msgspec

from manager.api.control import ControlService
from manager.api.peer import PeerService
from manager.api.recorder import Recorder
from manager.api.staleness import Staleness
from manager.ca.rpc import CertificateServicer, JoinServicer
from manager.dispatcher.rpc import DispatcherService
from shoal.access import Gate
from shoal.bound import Bounds
from shoal.errors import Unavailable
from shoal.forward import Forward
from shoal.rpc import listen_locally, new_server
from shoal.settings import JOIN_PORT_OFFSET, MANAGER_PORT, host_port
from shoal.tls import Identity, server_credentials
from shoal.v1 import ca_pb2_grpc, control_pb2_grpc, dispatcher_pb2_grpc, manager_pb2_grpc

STOP_SERVING_S = 2.0
# With what is left to an agent whose stream broke (4 s of 6, by default), a dead host is DOWN within 10 s. More time to
# answer and less between: a host that is only busy must not be cut off, and come back to a manager that is busy too.
PING_EVERY_S = 1.7
PING_TIMEOUT_S = 3.5
# What somebody who is no member may send: a token or a certificate, and a signing request; and hold meanwhile.
STRANGERS = Bounds(message_bytes=64 << 10, streams=4, calls=256, idle_s=30.0)
# A session carries at most 1,000 statuses or 10,000 images at once. A connection is one agent's or one client's.
MEMBERS = Bounds(
    ahead_bytes=1 << 20,
    service_bytes={
        "shoal.v1.DispatcherService": 8 << 20,
        "shoal.v1.CertificateService": 64 << 10,
        "shoal.v1.ControlService": 4 << 20,
        "shoal.v1.ManagerService": 64 << 10,
    },
    streams=128,
)


class Services(msgspec.Struct, frozen=True):
    """What stands behind the ports; `engine` relays to nodes."""

    control: ControlService
    dispatcher: DispatcherService
    renewal: CertificateServicer
    join: JoinServicer
    peer: PeerService
    engine: Forward


class Ports:
    """The TCP ports are taken when this is made; nobody is served before `open`. Raises Unavailable where one is not
    to be had. `shown` and `trusting` are asked at every handshake: who this manager is, and that with all whom it lets
    through TLS."""

    def __init__(
        self,
        listen: str,
        socket: Path,
        services: Services,
        *,
        recorder: Recorder,
        gate: Gate,
        staleness: Staleness,
        shown: Callable[[], Identity],
        trusting: Callable[[], Identity],
    ) -> None:
        self._socket = socket
        within = (recorder, gate, staleness)
        self._members = new_server(
            interceptors=within, bounds=MEMBERS, ping_every_s=PING_EVERY_S, ping_timeout_s=PING_TIMEOUT_S
        )
        dispatcher_pb2_grpc.add_DispatcherServiceServicer_to_server(services.dispatcher, self._members)
        ca_pb2_grpc.add_CertificateServiceServicer_to_server(services.renewal, self._members)
        control_pb2_grpc.add_ControlServiceServicer_to_server(services.control, self._members)
        manager_pb2_grpc.add_ManagerServiceServicer_to_server(services.peer, self._members)
        self._members.add_generic_rpc_handlers((services.engine,))
        self._strangers = new_server(interceptors=(recorder,), bounds=STRANGERS)
        ca_pb2_grpc.add_JoinServiceServicer_to_server(services.join, self._strangers)
        self._local = new_server(interceptors=within)
        control_pb2_grpc.add_ControlServiceServicer_to_server(services.control, self._local)
        self._local.add_generic_rpc_handlers((services.engine,))
        host, port = host_port(listen, MANAGER_PORT)
        _take(self._members, host, port, server_credentials(trusting, require_client=True))
        _take(self._strangers, host, port + JOIN_PORT_OFFSET, server_credentials(shown, require_client=False))

    async def open(self) -> None:
        """Serve. The socket last: whoever finds it answering finds the rest so too."""
        self._socket.parent.mkdir(parents=True, exist_ok=True, mode=0o711)
        self._socket.unlink(missing_ok=True)
        listen_locally(self._local, self._socket)
        for server in (self._members, self._strangers, self._local):
            await server.start()

    def hide(self) -> None:
        """Nobody finds the socket any more."""
        self._socket.unlink(missing_ok=True)

    async def close(self) -> None:
        """Calls get a moment to come to their end. Idempotent."""
        for server in (self._local, self._strangers, self._members):
            await server.stop(STOP_SERVING_S)


def _take(server: grpc.aio.Server, host: str, port: int, credentials: grpc.ServerCredentials) -> None:
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise Unavailable(
            f"cannot listen on {address}: the address is not this host's, or the port is in use",
            hint="choose another with --listen-addr",
        ) from error
