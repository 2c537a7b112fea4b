"""Bytes that a client streams in: to a worker thread that reads an archive, or straight into the content store."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import AsyncIterator, Iterator

from agent.image.compression import Compression, decompress, detect
from agent.image.content import CHUNK, Content
from agent.image.layer import Cancelled
from agent.image.threads import Threads


class Incoming:
    """An asynchronous stream as a plain iterator, for one worker thread. `cancel` ends its waiting."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._loop = asyncio.get_running_loop()
        self._cancelled = False
        self._pending: concurrent.futures.Future[bytes | None] | None = None

    def __iter__(self) -> Iterator[bytes]:
        while True:
            self._pending = asyncio.run_coroutine_threadsafe(self._next(), self._loop)
            if self._cancelled:
                self._pending.cancel()
            try:
                chunk = self._pending.result()
            except concurrent.futures.CancelledError as error:
                raise Cancelled from error
            if chunk is None:
                return
            yield chunk

    def cancel(self) -> None:
        self._cancelled = True
        if self._pending is not None:
            self._pending.cancel()

    async def _next(self) -> bytes | None:
        return await anext(self._chunks, None)


async def store(chunks: AsyncIterator[bytes], content: Content, threads: Threads) -> str:
    """Put a stream into the content store; its digest. What no image may have as a layer (xz, bzip2) is kept plain."""
    writer = content.writer()
    held: list[bytes] = []
    size = 0
    head = b""
    try:
        async for chunk in chunks:
            head = head or chunk[:6]
            held.append(chunk)
            size += len(chunk)
            if size >= CHUNK:
                data, held, size = b"".join(held), [], 0
                await threads.run(lambda data=data: writer.write(data))  # type: ignore[misc]
        await threads.run(lambda: writer.write(b"".join(held)))
        digest = await threads.run(writer.commit)
    finally:
        await threads.run(writer.abort)
    if detect(head) in (Compression.XZ, Compression.BZIP2):
        return await threads.run(lambda: _plain(digest, content))
    return digest


def _plain(digest: str, content: Content) -> str:
    writer = content.writer()
    try:
        with content.open(digest) as packed:
            for piece in decompress(iter(lambda: packed.read(CHUNK), b"")):
                writer.write(piece)
        return writer.commit()
    finally:
        writer.abort()
