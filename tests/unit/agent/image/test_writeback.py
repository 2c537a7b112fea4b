"""When a pull has what it unpacked written, seen by what it asks of the threads; the filesystem is a real one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from agent.image.threads import Threads
from agent.image.writeback import Writeback

T = TypeVar("T")
LARGE = 16 << 20


class Held(Threads):
    """Counts what is begun, and lets none of it begin before `go`."""

    def __init__(self) -> None:
        super().__init__(1)
        self.go = asyncio.Event()
        self.begun = 0

    async def run(self, work: Callable[[], T], *, stop: Callable[[], None] | None = None) -> T:
        self.begun += 1
        await self.go.wait()
        return await super().run(work, stop=stop)


async def test_small_layers_are_written_once_there_are_enough_of_them(tmp_path: Path) -> None:
    threads = Held()
    threads.go.set()
    async with asyncio.TaskGroup() as group:
        writeback = Writeback(tmp_path, group, threads)
        writeback.unpacked(LARGE - 1)
        await asyncio.sleep(0)
        assert not threads.begun
        writeback.unpacked(1)
    assert threads.begun == 1
    threads.close()


async def test_one_sync_runs_at_a_time_and_the_next_takes_what_came_meanwhile(tmp_path: Path) -> None:
    threads = Held()
    async with asyncio.TaskGroup() as group:
        writeback = Writeback(tmp_path, group, threads)
        for _ in range(3):
            writeback.unpacked(LARGE)
            await asyncio.sleep(0)
        assert threads.begun == 1
        threads.go.set()
        while threads.begun == 1:  # until the first one has ended
            await asyncio.sleep(0)
            writeback.unpacked(0)
    assert threads.begun == 2
    threads.close()
