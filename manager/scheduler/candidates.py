"""Candidates: the nodes that services with the same constraints may run on, in the branches that they spread over."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import msgspec
import numpy as np

from manager.scheduler.labels import Column


class Branch(msgspec.Struct, frozen=True):
    """Candidates from `begin` up to `end` are alike in all preferences above."""

    begin: int
    end: int
    children: tuple[Branch, ...] = ()


class Candidates:
    """`places` are ordered by branch, then by the node's id. `levels` has for each preference, the first one first,
    where its branches begin."""

    def __init__(self, places: Column, labels: Sequence[Column]) -> None:
        """`places` by the node's id; `labels` are theirs, for each preference."""
        self.places = places
        self.levels: list[Column] = []
        self._root: Branch | None = None
        self._positions: dict[int, int] = {}
        if not labels or not len(places):
            return
        order = np.lexsort(labels[::-1])
        self.places = places[order]
        begins = np.zeros(len(places), np.bool_)
        begins[0] = True
        for column in labels:
            ordered = column[order]
            begins[1:] |= ordered[1:] != ordered[:-1]
            self.levels.append(np.flatnonzero(begins))

    def __len__(self) -> int:
        return len(self.places)

    @property
    def root(self) -> Branch:
        """All of them, as a tree."""
        if self._root is None:
            self._root = self._branch(0, 0, len(self))
        return self._root

    def has(self, place: int) -> bool:
        return self.position(place) >= 0

    def position(self, place: int) -> int:
        """Where in `places` it is; -1: it is none of them."""
        if not self._positions:
            self._positions = {each: position for position, each in enumerate(self.places.tolist())}
        return self._positions.get(place, -1)

    def starts(self, depth: int, begin: int, end: int) -> Column:
        """Where the branches of a level begin that lie in a branch of the one above."""
        level = self.levels[depth]
        first, last = np.searchsorted(level, (begin, end))
        return level[first:last]

    def _branch(self, depth: int, begin: int, end: int) -> Branch:
        if depth == len(self.levels):
            return Branch(begin, end)
        starts = [*self.starts(depth, begin, end).tolist(), end]
        pairs = itertools.pairwise(starts)
        return Branch(begin, end, tuple(self._branch(depth + 1, first, last) for first, last in pairs))
