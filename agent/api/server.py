"""Server: the agent's two servers, and who may call what.

On the unix socket stands all that one host does, for local root. Over mTLS stand the blobs, for any member of the
cluster, and what one host does, for managers, which relay users' calls to the node that has the container.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from shoal.errors import PermissionDenied
from shoal.model.node import Role
from shoal.rpc import new_server
from shoal.tls import Identity, peer_of, server_credentials

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

# Adds one service to a server.
Service = Callable[[grpc.aio.Server], None]
MEMBERS_SERVICE = "shoal.v1.BlobService"
SOCKET_MODE = 0o660


async def serve_local(path: Path, services: Sequence[Service], relay: grpc.GenericRpcHandler) -> grpc.aio.Server:
    """Serve on a unix socket that only root, and whom root gives its group, can open."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o711)
    # What a killed agent left; that none lives is known by its lock.
    path.unlink(missing_ok=True)
    server = new_server()
    for add in services:
        add(server)
    server.add_generic_rpc_handlers((relay,))
    # gRPC makes the socket with the process's umask: nobody else may come in between bind and chmod.
    before = os.umask(0o177)
    try:
        server.add_insecure_port(f"unix:{path}")
    finally:
        os.umask(before)
    path.chmod(SOCKET_MODE)
    await server.start()
    return server


async def serve_peers(address: str, load: Callable[[], Identity], services: Sequence[Service]) -> grpc.aio.Server:
    """Serve other hosts on "ADDR:PORT" as whoever `load` says we are now. Raises RuntimeError for a busy port."""
    server = new_server(interceptors=(Doorkeeper(),))
    for add in services:
        add(server)
    server.add_secure_port(address, server_credentials(load, require_client=True))
    await server.start()
    return server


class Doorkeeper(grpc.aio.ServerInterceptor):
    """Lets members read blobs, and managers do the rest. That the caller is a member, TLS has checked."""

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        handler = await continuation(details)
        method: str = details.method
        if handler is None or method.startswith(f"/{MEMBERS_SERVICE}/"):
            return handler
        return _guarded(handler, method)


def check_manager(context: Context, method: str) -> None:
    """Raises PermissionDenied unless a manager calls."""
    peer = peer_of(context)
    if peer is None or peer.role is not Role.MANAGER:
        raise PermissionDenied(f"{method} of a node is for managers of its swarm only")


def _guarded(handler: Any, method: str) -> Any:
    """`handler` behind `check_manager`."""

    async def unary(request: Any, context: Context) -> Any:
        check_manager(context, method)
        return await (handler.unary_unary or handler.stream_unary)(request, context)

    async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
        check_manager(context, method)
        async for response in (handler.unary_stream or handler.stream_stream)(request, context):
            yield response

    coders = handler.request_deserializer, handler.response_serializer
    if handler.response_streaming:
        if handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(stream, *coders)
        return grpc.unary_stream_rpc_method_handler(stream, *coders)
    if handler.request_streaming:
        return grpc.stream_unary_rpc_method_handler(unary, *coders)
    return grpc.unary_unary_rpc_method_handler(unary, *coders)
