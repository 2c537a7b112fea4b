"""Time as an input. Daemons get a `SystemClock`, tests a `ManualClock` that jumps."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from typing import Protocol


class Clock(Protocol):
    """Wall time for records, monotonic time for waiting."""

    def now_ns(self) -> int:
        """Nanoseconds since the epoch, UTC; may jump with the host's clock."""

    def monotonic(self) -> float:
        """Seconds that never go back."""

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds` of monotonic time."""


class SystemClock:
    def now_ns(self) -> int:
        return time.time_ns()

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class ManualClock:
    """Stands still until told; sleepers wake in order of their time."""

    def __init__(self, start_ns: int = 1_700_000_000_000_000_000) -> None:
        self._start_ns = start_ns
        self._elapsed = 0.0
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now_ns(self) -> int:
        return self._start_ns + int(self._elapsed * 1e9)

    def monotonic(self) -> float:
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._elapsed + seconds, next(self._order), future))
        await future

    def shift(self, seconds: float) -> None:
        """Set the wall clock, as an operator does; whoever sleeps does not notice."""
        self._start_ns += int(seconds * 1e9)

    async def advance(self, seconds: float) -> None:
        """Move on by `seconds`, waking every sleeper at its own time and letting what it does happen."""
        end = self._elapsed + seconds
        await settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            when, _, future = heapq.heappop(self._sleepers)
            self._elapsed = max(self._elapsed, when)
            if not future.done():
                future.set_result(None)
            await settle()
        self._elapsed = end


async def settle(rounds: int = 20) -> None:
    """Let everything that is ready to run do so, a few times over."""
    for _ in range(rounds):
        await asyncio.sleep(0)
