"""Threads for what blocks: files, hashing, archives, the catalog. Nothing of it may run on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Threads:
    """A small pool; `close` waits for what runs."""

    def __init__(self, count: int = 6) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="image")

    async def run(self, work: Callable[[], T], *, stop: Callable[[], None] | None = None) -> T:
        """The result of `work`. A cancelled caller gets its CancelledError only once the thread is done, so that it
        may then close and delete what the thread used; `stop()` is to make that soon."""
        future = asyncio.get_running_loop().run_in_executor(self._pool, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            if stop is not None:
                stop()
            await _finished(future)
            raise

    def close(self) -> None:
        self._pool.shutdown(wait=True)


async def _finished(future: asyncio.Future[T]) -> None:
    while not future.done():
        try:
            await asyncio.wait({future})
        except asyncio.CancelledError:
            continue  # asked again; the thread still holds the files
    if not future.cancelled():
        future.exception()  # seen: it came too late to matter
