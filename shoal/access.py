"""Who may call what on a server behind mutual TLS. That a caller is a member of the cluster, TLS has checked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from shoal.errors import PermissionDenied
from shoal.model.node import Role
from shoal.tls import peer_of

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]


class Doorkeeper(grpc.aio.ServerInterceptor):
    """Lets every member call the services `members` (full names), and managers all of them. `whose` says in
    messages what the others belong to: "a node", "a manager"."""

    def __init__(self, members: Collection[str], *, whose: str) -> None:
        self._members = frozenset(members)
        self._whose = whose

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        handler = await continuation(details)
        method: str = details.method
        if handler is None or method.rpartition("/")[0].lstrip("/") in self._members:
            return handler
        return self._guarded(handler, method)

    def _check(self, context: Context, method: str) -> None:
        peer = peer_of(context)
        if peer is None or peer.role is not Role.MANAGER:
            raise PermissionDenied(
                f"{method.rpartition('/')[2]} of {self._whose} is for managers of its swarm, and this node is a worker",
                hint="run the command on a manager",
            )

    def _guarded(self, handler: Any, method: str) -> Any:
        async def unary(request: Any, context: Context) -> Any:
            self._check(context, method)
            return await (handler.unary_unary or handler.stream_unary)(request, context)

        async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
            self._check(context, method)
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
