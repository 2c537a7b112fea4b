"""What a build tells while it runs: which steps begin, what they write, how they end. The reader sets the pace."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec

from agent.image.source import Progress, Report
from shoal.clock import Clock

# Of a layer's way here, what is worth a line.
_MILESTONES = ("Already exists", "Download complete", "Pull complete")


class Began(msgspec.Struct, frozen=True):
    number: int
    title: str


class Wrote(msgspec.Struct, frozen=True):
    """`stream`: 1 for stdout, 2 for stderr."""

    number: int
    stream: int
    data: bytes


class Ended(msgspec.Struct, frozen=True):
    """`failed` and `cached` are false for a step that was done."""

    number: int
    taken_ns: int
    cached: bool = False
    failed: bool = False


class Shown(msgspec.Struct, frozen=True):
    """The lines of the Dockerfile that are to blame."""

    text: str


class Left(msgspec.Struct, frozen=True):
    """An image of what a failed command wrote, to look into."""

    image_id: str


Event = Began | Wrote | Ended | Shown | Left
Tell = Callable[[Event], Awaitable[None]]


class Handle:
    """One step that runs."""

    def __init__(self, number: int, tell: Tell) -> None:
        self.cached = False
        self._number = number
        self._tell = tell

    async def write(self, stream: int, data: bytes) -> None:
        await self._tell(Wrote(self._number, stream, data))


@asynccontextmanager
async def layers_told(handle: Handle) -> AsyncIterator[Report]:
    """For an image that a step brings: each layer's milestones are lines of the step."""
    lines: asyncio.Queue[str] = asyncio.Queue()
    last: dict[str, str] = {}

    def report(progress: Progress) -> None:
        if progress.status in _MILESTONES and last.get(progress.id) != progress.status:
            last[progress.id] = progress.status
            lines.put_nowait(f"{progress.id}: {progress.status}\n")

    async def write() -> None:
        while line := await lines.get():
            await handle.write(1, line.encode())

    writing = asyncio.create_task(write())
    try:
        yield report
        lines.put_nowait("")
        await writing
    finally:
        writing.cancel()


class Reporter:
    def __init__(self, tell: Tell, clock: Clock) -> None:
        self.tell = tell
        self._clock = clock
        self._numbers = itertools.count(1)

    @asynccontextmanager
    async def step(self, title: str) -> AsyncIterator[Handle]:
        """Around a step; what the block says of it counts when it ends."""
        number = next(self._numbers)
        handle = Handle(number, self.tell)
        began_ns = self._clock.now_ns()
        await self.tell(Began(number, title))
        try:
            yield handle
        except Exception:  # whatever it was, it is told as failed and goes on up
            await self.tell(Ended(number, self._clock.now_ns() - began_ns, failed=True))
            raise
        await self.tell(Ended(number, self._clock.now_ns() - began_ns, cached=handle.cached))


def excerpt(text: str, name: str, first: int, last: int) -> str:
    """The lines `first` to `last` of a Dockerfile with those around them, marked."""
    lines = text.splitlines()
    begin, end = max(1, first - 2), min(len(lines), last + 2)
    shown = [
        f"{number:4} | {'>>>' if first <= number <= last else '   '} {lines[number - 1].rstrip()}"
        for number in range(begin, end + 1)
    ]
    rule = "-" * 20
    return "\n".join([f"{name}:{first}", rule, *shown, rule])
