"""Channel: the agent's end of a connection to the keeper that is one process's: frames in, frames out.

`line` dials it, `streams` says what the frames mean. What nobody has taken yet is held as far as AHEAD_BYTES; then the
rest is left to the kernel, and so to the keeper.
"""

from __future__ import annotations

import asyncio
import select
from typing import cast

from agent.runtime import wire

AHEAD_BYTES = 128 * 1024


class Channel(asyncio.Protocol):
    """One task at a time receives; any may send."""

    def __init__(self) -> None:
        self._decoder = wire.Decoder()
        self._frames: list[tuple[int, bytes]] = []
        self._held = 0
        self._paused = False
        self._lost = False
        self._came = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()

    @property
    def alive(self) -> bool:
        """Whether the other side is still there, by what the kernel knows at this moment."""
        if self._lost or self._transport.is_closing():
            return False
        return not self._gone.poll(0)

    async def receive(self) -> list[tuple[int, bytes]]:
        """The frames that have come, at least one; none once the connection has ended."""
        while not self._frames and not self._lost:
            self._came.clear()
            await self._came.wait()
        found, self._frames, self._held = self._frames, [], 0
        if self._paused and not self._transport.is_closing():
            self._transport.resume_reading()
        self._paused = False
        return found

    async def send(self, data: bytes) -> None:
        """Returns when there is room for more. After the connection's end nothing happens."""
        if not self._lost:
            self._transport.write(data)
            await self._writable.wait()

    def close(self) -> None:
        """Once all that was sent is out."""
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one, but does not say so
        self._gone = select.poll()
        self._gone.register(transport.get_extra_info("socket").fileno(), select.POLLRDHUP)

    def data_received(self, data: bytes) -> None:
        try:
            for kind, payload in self._decoder.feed(data):
                self._frames.append((kind, payload))
                self._held += len(payload)
        except ValueError:  # no keeper sends that
            self._transport.abort()
        if self._held > AHEAD_BYTES and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self._came.set()

    def connection_lost(self, _error: Exception | None) -> None:
        self._lost = True
        self._came.set()
        self._writable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()
