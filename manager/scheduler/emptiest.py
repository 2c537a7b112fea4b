"""Emptiest: candidates by how many tasks they have, for services that need only a few nodes.

Shared by all services with the same constraints: most are small, and would else have every node ranked for one task.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

import numpy as np

from manager.scheduler.labels import Column

_TRIES = 32
_PLACE = (1 << 32) - 1


class Emptiest:
    """Of nodes of which `total` only rises. An entry is a number: tasks, then the place in `places`; it is corrected
    when it comes up."""

    def __init__(self, total: Column, places: Column) -> None:
        self._total = total
        self._places: list[int] = places.tolist()
        keys = (total[places] << 32) | np.arange(len(places))
        keys.sort()
        self._heap: list[int] = keys.tolist()  # what is sorted is a heap

    def find(self, fits: Callable[[int], bool]) -> int | None:
        """The node with the fewest tasks that `fits`, of equal ones the first; None if none of the first few does."""
        heap, total = self._heap, self._total
        unfit: list[int] = []
        found = None
        while heap and found is None and len(unfit) < _TRIES:
            at = heap[0] & _PLACE
            place = self._places[at]
            count = total.item(place)
            if count != heap[0] >> 32:
                heapq.heapreplace(heap, count << 32 | at)
            elif fits(place):
                found = place
            else:
                unfit.append(heapq.heappop(heap))
        for entry in unfit:
            heapq.heappush(heap, entry)
        return found
