"""Lines of many tasks as one output: whose a line is, in which order, and how it looks. `logs` fetches and
writes them."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from cli.output.words import rfc3339_padded
from shoal.v1.engine_pb2 import LogLine


class Said(NamedTuple):
    """A line, or the part of one, and the source that said it."""

    source: str
    line: LogLine


class Printer:
    """Makes bytes of lines. A line may come in parts: a source that speaks in between begins one of its own."""

    def __init__(self, *, timestamps: bool, raw: bool) -> None:
        self._timestamps = timestamps
        self._raw = raw
        self._width = 0
        self._open: dict[bool, str] = {}  # stderr? → the source whose line has not ended there

    def widen(self, source: str) -> None:
        """Sources that are known before are aligned from the first line on."""
        self._width = max(self._width, len(source))

    def render(self, said: Said) -> bytes:
        """The bytes for stdout, or for stderr if it was said there."""
        source, line = said
        speaking = self._open.pop(line.stderr, "")
        data = line.data
        if speaking != source:
            data = self._beginning(said) + data
            if speaking and not self._raw:
                data = b"\n" + data
        if not line.data.endswith(b"\n"):
            self._open[line.stderr] = source
        return data

    def _beginning(self, said: Said) -> bytes:
        at = f"{rfc3339_padded(said.line.at_ns)} " if self._timestamps else ""
        if self._raw:
            return at.encode()
        self.widen(said.source)
        return f"{at}{said.source:<{self._width}}    | ".encode()


async def in_time(sources: Sequence[AsyncIterator[Said]]) -> AsyncIterator[Said]:
    """Everything that `sources` say, each in its own order, merged by time. All are opened at once."""
    firsts = await asyncio.gather(*(anext(each, None) for each in sources))
    heap = [(first.line.at_ns, at, first) for at, first in enumerate(firsts) if first is not None]
    heapq.heapify(heap)
    while heap:
        _, at, said = heap[0]
        yield said
        after = await anext(sources[at], None)
        if after is None:
            heapq.heappop(heap)
        else:
            heapq.heapreplace(heap, (after.line.at_ns, at, after))
