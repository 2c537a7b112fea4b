"""The bytes of attach and exec between a client's stream and a container's: what the client sends goes in as it
comes, what the container writes goes out, and last how it ended. The client's half-close alone ends nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection
from typing import Protocol, TypeVar

from agent.container.attach import Attachment
from agent.runtime.streams import Streams
from shoal.errors import ShoalError
from shoal.signals import signal_number
from shoal.v1 import engine_pb2 as wire

Client = TypeVar("Client", wire.AttachContainerRequest, wire.ExecContainerRequest)

_STDOUT = 1


class Input(Protocol):
    """What takes what a client sends."""

    async def write(self, data: bytes) -> None: ...
    async def close_stdin(self) -> None: ...
    async def resize(self, rows: int, columns: int) -> None: ...
    async def signal(self, number: int) -> None: ...


async def relay_attachment(
    attachment: Attachment, requests: AsyncIterator[wire.AttachContainerRequest], shown: Collection[int]
) -> AsyncIterator[wire.AttachContainerResponse]:
    """`shown`: the streams that the client wants."""
    async with _pumping(requests, attachment):
        while (chunk := await attachment.read()) is not None:
            stream, data = chunk
            if stream in shown:
                yield (
                    wire.AttachContainerResponse(stdout=data)
                    if stream == _STDOUT
                    else wire.AttachContainerResponse(stderr=data)
                )
        ending = await attachment.wait()
        exit = wire.Exit(code=ending.exit_code, oom_killed=ending.oom_killed, error=ending.error)
        yield wire.AttachContainerResponse(exit=exit)


async def relay(
    streams: Streams, requests: AsyncIterator[wire.ExecContainerRequest]
) -> AsyncIterator[wire.ExecContainerResponse]:
    async with _pumping(requests, streams):
        while (chunk := await streams.read()) is not None:
            stream, data = chunk
            yield (
                wire.ExecContainerResponse(stdout=data)
                if stream == _STDOUT
                else wire.ExecContainerResponse(stderr=data)
            )
        exit = await streams.wait()
        yield wire.ExecContainerResponse(exit=wire.Exit(code=exit.code, oom_killed=exit.oom_killed))


@contextlib.asynccontextmanager
async def _pumping(requests: AsyncIterator[Client], into: Input) -> AsyncIterator[None]:
    """What the client sends goes in for as long as the block runs."""
    pump = asyncio.create_task(_pump(requests, into), name="client input")
    try:
        yield
    finally:
        pump.cancel()
        # Its own failure, if any, is that of a process that is gone; the exit says so.
        await asyncio.wait((pump,))
        if not pump.cancelled():
            pump.exception()


async def _pump(requests: AsyncIterator[Client], into: Input) -> None:
    async for request in requests:
        # What has just ended takes nothing more; how it ended is on its way.
        with contextlib.suppress(ShoalError):
            await _put(request, into)


async def _put(request: wire.AttachContainerRequest | wire.ExecContainerRequest, into: Input) -> None:
    match request.WhichOneof("request"):
        case "stdin":
            await into.write(request.stdin)
        case "stdin_close":
            await into.close_stdin()
        case "resize":
            await into.resize(request.resize.rows, request.resize.columns)
        case "signal":
            await into.signal(signal_number(request.signal))
