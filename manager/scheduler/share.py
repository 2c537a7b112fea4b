"""Share: how many tasks each candidate gets, all at once; the outcome is that of giving them away one by one.

One by one, the next task goes to whoever has the least and has room, so they are filled like vessels: up to one
level. Branches are filled first, then the nodes of each; nodes that come last get what the others have no room for.
"""

from __future__ import annotations

import numpy as np

from manager.scheduler.candidates import Candidates
from manager.scheduler.labels import Column, Mask


def share(candidates: Candidates, amount: int, *, have: Column, room: Column, rest: Column, last: Mask) -> Column:
    """What each candidate gets of `amount`, less if there is no room for all. `have` and `room` are how many tasks of
    the service each has and how many more it can take; of equal ones that with the least `rest` is first."""
    return _Share(candidates, have, room, rest, last).of(0, 0, len(candidates), amount)


class _Share:
    def __init__(self, candidates: Candidates, have: Column, room: Column, rest: Column, last: Mask) -> None:
        self._candidates = candidates
        self._have = have
        self._room = room
        self._rest = rest
        self._last = last if last.any() else None

    def of(self, depth: int, begin: int, end: int, amount: int) -> Column:
        """Within one branch."""
        if depth == len(self._candidates.levels):
            return self._leaf(slice(begin, end), amount)
        starts = self._candidates.starts(depth, begin, end)
        have = np.add.reduceat(self._have[begin:end], starts - begin)
        room = np.add.reduceat(self._room[begin:end], starts - begin)
        given = np.zeros(end - begin, np.int64)
        ends = [*starts[1:].tolist(), end]
        parts = pour(amount, have, room, np.arange(len(starts))).tolist()
        for first, last, part in zip(starts.tolist(), ends, parts, strict=True):
            if part:
                given[first - begin : last - begin] = self.of(depth + 1, first, last, part)
        return given

    def _leaf(self, where: slice, amount: int) -> Column:
        have, room, rest = self._have[where], self._room[where], self._rest[where]
        if self._last is None:
            return pour(amount, have, room, rest)
        last = self._last[where]
        given = pour(amount, have, np.where(last, 0, room), rest)
        left = amount - int(given.sum())
        return given + pour(left, have, np.where(last, room, 0), rest) if left else given


def pour(amount: int, have: Column, room: Column, rest: Column) -> Column:
    """Raise the lowest first, each by no more than its room. At the level where not all can be raised, those with the
    least `rest` are, of equal ones the first."""
    if amount >= (whole := int(room.sum())):
        return room if whole else np.zeros_like(room)
    level = _level(amount, have, room)
    given = _raised(level, have, room)
    left = amount - int(given.sum())
    if left:
        given[_first(left, np.flatnonzero((have <= level) & (given < room)), rest)] += 1
    return given


def _level(amount: int, have: Column, room: Column) -> int:
    """The highest one up to which all can be raised; there is more room than `amount`."""
    low = int(have[room > 0].min())
    step = 1
    while _takes(low + step, have, room) <= amount:
        low += step
        step *= 2
    while step > 1:
        step //= 2
        if _takes(low + step, have, room) <= amount:
            low += step
    return low


def _takes(level: int, have: Column, room: Column) -> int:
    return int(_raised(level, have, room).sum())


def _raised(level: int, have: Column, room: Column) -> Column:
    raised: Column = np.minimum(np.maximum(level - have, 0), room)
    return raised


def _first(count: int, which: Column, rest: Column) -> Column:
    """The `count` of `which` with the least `rest`, of equal ones the first."""
    if count >= len(which):
        return which
    value = rest[which]
    value -= value.min()
    up_to = np.cumsum(np.bincount(value))  # how many there are with so much or less; counting is cheaper than sorting
    limit = int(np.searchsorted(up_to, count))
    below = which[value < limit]
    return np.concatenate([below, which[value == limit][: count - len(below)]])
