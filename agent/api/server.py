"""Server: the agent's two servers, and who may call what.

On the unix socket stands all that one host does, for local root. Over mTLS stand the blobs, for any member of the
cluster, and what one host does, for managers, which relay users' calls to the node that has the container.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio

from agent.api.lane import Handlers, Lanes
from agent.trust import Doorkeeper
from shoal.forward import Forward
from shoal.lane import beside
from shoal.rpc import listen_locally, new_server
from shoal.tls import Identity, server_credentials

# Adds one service to a server.
Service = Callable[[grpc.aio.Server], None]


class Local:
    """What serves this host: gRPC for who comes from afar (ssh), a lane for each call of its own commands."""

    def __init__(self, server: grpc.aio.Server, lanes: Lanes) -> None:
        self._server = server
        self._lanes = lanes

    async def stop(self, grace_s: float | None) -> None:
        """Take no more calls; those under way are cancelled after the grace."""
        await asyncio.gather(self._server.stop(grace_s), self._lanes.stop(grace_s))


async def serve_local(
    path: Path, services: Sequence[Service], relay: grpc.GenericRpcHandler, *, elsewhere: Elsewhere | None = None
) -> Local:
    """Serve on a unix socket, and a lane beside it, that only root, and whom root gives its group, can open."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o711)
    # What a killed agent left; that none lives is known by its lock.
    path.unlink(missing_ok=True)
    interceptors = (elsewhere,) if elsewhere else ()
    server, handlers = new_server(interceptors=interceptors), Handlers(interceptors)
    for add in services:
        add(server)
        add(cast("grpc.aio.Server", handlers))
    server.add_generic_rpc_handlers((relay,))
    handlers.add_generic_rpc_handlers((relay,))
    listen_locally(server, path)
    await server.start()
    lanes = Lanes(handlers)
    await lanes.listen(Path(beside(str(path))))
    return Local(server, lanes)


async def serve_peers(
    address: str, load: Callable[[], Identity], services: Sequence[Service], doorkeeper: Doorkeeper
) -> grpc.aio.Server:
    """Serve other hosts, as far as `doorkeeper` lets them, on "ADDR:PORT" as whoever `load` says we are now. Raises
    RuntimeError for a busy port."""
    server = new_server(interceptors=(doorkeeper.gate,))
    for add in services:
        add(server)
    server.add_secure_port(address, server_credentials(load, require_client=True))
    await server.start()
    return server


class Elsewhere(grpc.aio.ServerInterceptor):
    """Hands calls that name another node ("shoal-node" in their metadata) to `forward`, which knows the way; all
    others are served here. `own_id` is empty while this host is no member."""

    def __init__(self, forward: Forward, own_id: Callable[[], str]) -> None:
        self._forward = forward
        self._own_id = own_id

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        node = dict(details.invocation_metadata or ()).get("shoal-node", "")
        if node in ("", "self", self._own_id()):
            return await continuation(details)
        return self._forward.service(details) or await continuation(details)
