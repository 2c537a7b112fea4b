"""Link: a TCP relay on loopback that a test can cut, freeze, slow down, or have break after so many bytes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

_CHUNK = 1 << 14


class Link:
    """Between whoever dials `address` and `target`, both "HOST:PORT"."""

    def __init__(self, target: str) -> None:
        self._host, port = target.rsplit(":", 1)
        self._port = int(port)
        self._requests = asyncio.Event()
        self._answers = asyncio.Event()
        self.thaw()
        self._flows: set[asyncio.Task[None]] = set()
        self._refusing = False
        self._delay_s = 0.0
        self._break_after = 0
        self.address = ""
        self.passed = 0
        self.broken = 0

    def cut(self) -> None:
        """Connections break, and new ones are refused."""
        self._refusing = True
        self._break()

    def mend(self) -> None:
        self._refusing = False

    def freeze(self, *, answers_only: bool = False) -> None:
        """Not a byte goes through, or none comes back, and nobody is told."""
        self._answers.clear()
        if not answers_only:
            self._requests.clear()

    def thaw(self) -> None:
        self._answers.set()
        self._requests.set()

    def slow(self, delay_s: float) -> None:
        """Every piece takes this much longer."""
        self._delay_s = delay_s

    def break_after(self, size: int) -> None:
        """Connections break each time that so many bytes have come from the target; 0: no more."""
        self._break_after = size
        self.passed = 0

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(self._host, self._port)
        except OSError:
            writer.transport.abort()
            return
        both = asyncio.gather(
            self._flow(reader, far_writer, self._requests), self._flow(far_reader, writer, self._answers)
        )
        task = asyncio.ensure_future(self._until_broken(both, writer, far_writer))
        self._flows.add(task)
        task.add_done_callback(self._flows.discard)

    async def close(self) -> None:
        self._break()
        await asyncio.gather(*self._flows, return_exceptions=True)

    def _break(self) -> None:
        for flow in tuple(self._flows):
            flow.cancel()

    async def _until_broken(self, both: asyncio.Future[list[None]], *writers: asyncio.StreamWriter) -> None:
        try:
            await both
        except (OSError, asyncio.CancelledError):
            both.cancel()
        finally:
            for writer in writers:
                writer.transport.abort()

    async def _flow(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, opened: asyncio.Event) -> None:
        while data := await reader.read(_CHUNK):
            if self._delay_s:
                await asyncio.sleep(self._delay_s)
            await opened.wait()
            writer.write(data)
            await writer.drain()
            if opened is self._answers and self._break_after:
                self.passed += len(data)
                if self.passed >= self._break_after:
                    self.passed = 0
                    self.broken += 1
                    raise ConnectionResetError
        raise ConnectionResetError  # one end has closed: so does the other


@contextlib.asynccontextmanager
async def linked(target: str) -> AsyncIterator[Link]:
    link = Link(target)
    server = await asyncio.start_server(link.accept, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    link.address = f"{host}:{port}"
    try:
        yield link
    finally:
        server.close()
        await link.close()
