"""A relay for whole gRPC services: an agent passes its host's calls on to a manager, and a manager the engine's to a
node."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from shoal.errors import Unavailable
from shoal.rpc import Metadata, error_of

if TYPE_CHECKING:
    from shoal.rpc import Context


_SILENCE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


class Requests:
    """What a client sends in one call, with a look ahead."""

    def __init__(self, stream: AsyncIterator[bytes]) -> None:
        self._stream = stream
        self._seen: list[bytes] = []

    async def first(self) -> bytes:
        """The first message, which stays there; empty where the client sends none. Ask before the rest is taken."""
        if not self._seen and (message := await anext(self._stream, None)) is not None:
            self._seen.append(message)
        return self._seen[0] if self._seen else b""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for message in self._seen:
            yield message
        async for message in self._stream:
            yield message


# Told the method and the metadata of a call that is to be passed on, and what its client sends.
Around = Callable[[str, Metadata, Requests], contextlib.AbstractAsyncContextManager[None]]


@contextlib.asynccontextmanager
async def _nothing_around(_method: str, _metadata: Metadata, _requests: Requests) -> AsyncIterator[None]:
    yield


class Forward(grpc.GenericRpcHandler):
    """Relays every method of some services, as raw bytes and in both directions, to a channel chosen per call.

    `services` are full names ("shoal.v1.ContainerService"). `choose` gets the method and the call's metadata and
    may raise ShoalError. Metadata whose key begins with "shoal-" is passed on, both ways. `whom` says whose silence it
    is when nobody answers at the other end of the channel. `around` is asked before a call is passed on,
    and sees how it fails.
    """

    def __init__(
        self,
        services: Sequence[str],
        choose: Callable[[str, Metadata], Awaitable[grpc.aio.Channel]],
        *,
        whom: Callable[[Metadata], str],
        around: Around | None = None,
    ) -> None:
        self._services = frozenset(services)
        self._choose = choose
        self._whom = whom
        self._around = around or _nothing_around

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        name = details.method.rsplit("/", 1)[0].lstrip("/")
        if name not in self._services:
            return None
        method, metadata = details.method, details.invocation_metadata

        async def relay(requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
            channel = await self._choose(method, metadata)
            sent = Requests(requests)
            call: Any = None
            pump: asyncio.Task[None] | None = None
            try:
                async with self._around(method, metadata or (), sent):
                    call = channel.stream_stream(method)(metadata=_ours(metadata), timeout=_remaining(context))
                    pump = asyncio.create_task(_pump(sent, call))
                    async for response in call:
                        yield response
                    context.set_trailing_metadata(_ours(await call.trailing_metadata()))
            except grpc.aio.AioRpcError as error:
                trailing = tuple(error.trailing_metadata() or ())
                if error.code() in _SILENCE and "shoal-error" not in dict(trailing):
                    why = error_of(error).message
                    raise Unavailable(f"{self._whom(metadata or ())} does not answer: {why}") from error
                await context.abort(error.code(), error.details() or "", trailing)
            finally:
                if call is not None and pump is not None:
                    pump.cancel()
                    call.cancel()

        return grpc.stream_stream_rpc_method_handler(relay)


def _ours(metadata: Metadata | None) -> list[tuple[str, str | bytes]]:
    return [(key, value) for key, value in metadata or () if key.startswith("shoal-")]


async def _pump(requests: Requests, call: Any) -> None:
    """Pass the client's messages on; a call that has ended meanwhile ends this quietly."""
    with contextlib.suppress(grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError):
        async for request in requests:
            await call.write(request)
        await call.done_writing()


def _remaining(context: Context) -> float | None:
    left: float | None = context.time_remaining()
    return left
