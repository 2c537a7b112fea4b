"""One result of a benchmark, and how a pair of measurements becomes one."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypedDict


class Row(TypedDict):
    """`ratio` is ours/peer, lower is better but where `unit` is a rate; null without a peer."""

    name: str
    ours: float
    peer: float | None
    ratio: float | None
    unit: str


def row(name: str, ours: Sequence[float], peer: Sequence[float], unit: str) -> Row:
    """The medians of both sides and their ratio."""
    mine = statistics.median(ours)
    theirs = statistics.median(peer) if peer else None
    return Row(name=name, ours=mine, peer=theirs, ratio=mine / theirs if theirs else None, unit=unit)


def in_turns(ours: Callable[[], None], peer: Callable[[], None] | None, times: int) -> tuple[list[float], list[float]]:
    """Milliseconds of each, run in turns after one warm-up of both."""
    taken: tuple[list[float], list[float]] = ([], [])
    sides = [ours] if peer is None else [ours, peer]
    for count in range(times + 1):
        for side, run in enumerate(sides):
            start = time.perf_counter()
            run()
            if count:
                taken[side].append((time.perf_counter() - start) * 1000)
    return taken


async def awaited_in_turns(
    ours: Callable[[], Awaitable[None]], peer: Callable[[], None] | None, times: int
) -> tuple[list[float], list[float]]:
    """As `in_turns`, for ours that waits in a loop: to start and stop one for each time is not what is measured."""
    taken: tuple[list[float], list[float]] = ([], [])
    for count in range(times + 1):
        start = time.perf_counter()
        await ours()
        between = time.perf_counter()
        if count:
            taken[0].append((between - start) * 1000)
        if peer is not None:
            peer()
            if count:
                taken[1].append((time.perf_counter() - between) * 1000)
    return taken
