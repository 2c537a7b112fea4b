"""The user's SSH agent in the container of a RUN: a socket there, whose other end is at the client.

No key ever comes here: what goes through are the agent protocol's questions and answers.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Protocol

from agent.runtime import wire
from shoal.tasks import first_of

_CHUNK = 1 << 16


class Line(Protocol):
    """A connection to somebody's SSH agent."""

    async def read(self) -> bytes: ...
    async def write(self, data: bytes) -> None: ...


OpenLine = Callable[[], AbstractAsyncContextManager[Line]]


@asynccontextmanager
async def forwarded(path: Path, open_line: OpenLine, *, mode: int, owner: tuple[int, int]) -> AsyncIterator[None]:
    """A socket at `path`; each connection to it has a line of its own. All of them end with the block."""
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        task.add_done_callback(serving.discard)
        try:
            async with open_line() as line:
                await first_of(_up(reader, line), _down(line, writer))
        finally:
            writer.close()

    with wire.address(path) as name:
        server = await asyncio.start_unix_server(serve, name)
    os.chown(path, *owner)
    path.chmod(mode)
    try:
        yield
    finally:
        server.close()
        for each in list(serving):
            each.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


async def _up(reader: asyncio.StreamReader, line: Line) -> None:
    """Until the command hangs up; one that only has no more to say still wants to hear."""
    while data := await reader.read(_CHUNK):
        await line.write(data)
    await asyncio.Future()


async def _down(line: Line, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await line.read():
            writer.write(data)
            await writer.drain()
