"""Channel: calls of a daemon through gRPC: one on another host, or an agent that has no lanes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import grpc.aio

from cli.carrier import Failure, Metadata
from shoal import rpc

if TYPE_CHECKING:
    from shoal.tls import Identity

_OVER = (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError)


class Channel:
    """A connection to `unix:/path` or `HOST:PORT`, which is made with the first call."""

    def __init__(self, target: str, identity: Identity | None) -> None:
        self._channel = rpc.dial(target, identity=identity)

    def open(self, method: str, metadata: Metadata, timeout_s: float | None) -> Call:
        made: Any = self._channel.stream_stream(method)
        return Call(made(metadata=metadata, timeout=timeout_s))

    async def close(self) -> None:
        await self._channel.close()


class Call:
    """One call."""

    def __init__(self, call: Any) -> None:
        self.trailing: Mapping[str, str | bytes] = {}
        self._call = call

    async def write(self, message: bytes, *, last: bool = False) -> bool:
        try:
            await self._call.write(message)
            if last:
                await self._call.done_writing()
        except _OVER:
            return False
        return True

    async def done_writing(self) -> None:
        with contextlib.suppress(*_OVER):
            await self._call.done_writing()

    async def read(self) -> bytes | None:
        with _failures():
            message: bytes | Any = await self._call.read()
            if message is not grpc.aio.EOF:
                return bytes(message)
            await self._call.code()
            self.trailing = dict(await self._call.trailing_metadata() or ())
        return None

    def cancel(self) -> None:
        self._call.cancel()


@contextlib.contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except grpc.aio.AioRpcError as error:
        trailing = dict(error.trailing_metadata() or ())
        raise Failure(error.code().value[0], error.details() or error.code().name, trailing) from error
