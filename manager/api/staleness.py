"""Staleness: what the API does while the store cannot be written. Reads are answered from the mirror and say in their
trailing metadata ("shoal-stale") for how many seconds the store was not heard; all else is refused at once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from manager.store.base import Store
from shoal.errors import Unavailable
from shoal.rpc import STALE, make_handler

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

CONTROL_SERVICE = "/shoal.v1.ControlService/"
# What is answered from memory; the doctor asks the rest by itself, and tells what does not answer.
_READS = ("Get", "List", "Watch", "Examine")


class Staleness(grpc.aio.ServerInterceptor):
    def __init__(self, store: Store) -> None:
        self._store = store

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        handler = await continuation(details)
        method: str = details.method
        if handler is None or not method.startswith(CONTROL_SERVICE):
            return handler
        reads = method.removeprefix(CONTROL_SERVICE).startswith(_READS)

        async def one(request: Any, context: Context) -> Any:
            self._mark(context, reads)
            return await (handler.unary_unary or handler.stream_unary)(request, context)

        async def many(request: Any, context: Context) -> AsyncIterator[Any]:
            self._mark(context, reads)
            async for response in (handler.unary_stream or handler.stream_stream)(request, context):
                yield response

        return make_handler(handler, many if handler.response_streaming else one)

    def _mark(self, context: Context, reads: bool) -> None:
        if not self._store.trouble:
            return
        if not reads:
            raise Unavailable(self._store.trouble, hint="what runs goes on; changes wait until the store is back")
        context.set_trailing_metadata(((STALE, f"{self._store.silent_s:.0f}"),))
