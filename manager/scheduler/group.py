"""Group: the tasks of one service that wait. They are equal, so it is decided how many each node gets.

Few tasks are given away one by one, to the emptiest nodes, without looking at the others; many are shared out at once.
Both lead to the same nodes: fewest tasks of the service, then fewest tasks, then the lowest id, after evening out the
branches that placement preferences name.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable

import numpy as np

from manager.scheduler.candidates import Branch
from manager.scheduler.demand import Demand
from manager.scheduler.draft import Draft
from manager.scheduler.filter import Refusals, fits, room
from manager.scheduler.labels import Column
from manager.scheduler.rank import failing, spread_key
from manager.scheduler.share import share
from shoal.model.service import Service

_FEW = 24
_FEW_NODES = 1000
_FEW_BRANCHES = 64


class Group:
    def __init__(self, draft: Draft, service: Service, wanted: Demand, now_ns: int) -> None:
        load = draft.load
        placement = service.spec.task.placement
        self._draft = draft
        self._wanted = wanted
        self._own = dict(load.of_service.get(service.meta.id, ()))
        self._positions: list[int] = []
        self._failing = failing(load, service, now_ns)
        keys = tuple(map(spread_key, placement.preferences))
        self._candidates = load.candidates(placement.constraints, keys)

    def best(self, amount: int) -> list[int]:
        """The places of the nodes for the next tasks, in the order in which one after the other would be placed; fewer
        if no more fit. They are put into the draft."""
        found = self._one_by_one(amount) if self._are_few(amount) else []
        return found if len(found) == amount else found + self._at_once(amount - len(found))

    def on(self, node_id: str) -> int | None:
        """The place of this one node, if it takes one more task; it is put into the draft then."""
        place = self._draft.load.places.get(node_id)
        if place is None or not self._candidates.has(place) or not self._fits(place):
            return None
        self._take(place)
        return place

    def refusals(self) -> Refusals:
        return Refusals(self._draft, self._wanted, self._have())

    def _are_few(self, amount: int) -> bool:
        levels = self._candidates.levels
        return amount <= _FEW and len(self._own) <= _FEW_NODES and (not levels or len(levels[-1]) <= _FEW_BRANCHES)

    def _one_by_one(self, amount: int) -> list[int]:
        """As long as a node that has none of the service is best: which of the others is, the emptiest cannot say."""
        found: list[int] = []
        if self._candidates.levels:
            at = self._candidates.position
            self._positions = sorted(at(place) for place, count in self._own.items() for _ in range(count))
        while len(found) < amount and (place := self._next(self._candidates.root)) is not None:
            self._take(place)
            found.append(place)
        return found

    def _next(self, branch: Branch) -> int | None:
        """In the branch that has the least. If that has no such node, it is to be looked at more closely."""
        while branch.children:
            branch = min(branch.children, key=self._count)
        own, bad = self._own, self._failing
        return self._draft.emptiest(self._candidates, branch).find(
            lambda place: place not in own and place not in bad and self._fits(place)
        )

    def _count(self, branch: Branch) -> int:
        """How many tasks of the service are on its nodes."""
        return bisect_left(self._positions, branch.end) - bisect_left(self._positions, branch.begin)

    def _fits(self, place: int) -> bool:
        return fits(self._draft, self._wanted, place, self._own.get(place, 0))

    def _take(self, place: int) -> None:
        self._draft.place_one(self._wanted, place)
        self._own[place] = self._own.get(place, 0) + 1
        if self._candidates.levels:
            insort(self._positions, self._candidates.position(place))

    def _take_many(self, places: Column, counts: Column) -> None:
        self._draft.place(self._wanted, places, counts)
        for place, count in zip(places.tolist(), counts.tolist(), strict=True):
            self._own[place] = self._own.get(place, 0) + count

    def _at_once(self, amount: int) -> list[int]:
        """Shared out in one go, or in several where a network has too few blocks for all nodes that would need one."""
        found: list[int] = []
        while len(found) < amount and (places := self._shared_out(amount - len(found))):
            found += places
        return found

    def _shared_out(self, amount: int) -> list[int]:
        places = self._candidates.places
        have = self._have()[places]
        free = room(self._draft, self._wanted, places, have, most=amount)
        rest = self._draft.total[places] - have
        last = np.isin(places, list(self._failing))
        counts = self._within_blocks(
            amount, lambda part: share(self._candidates, part, have=have, room=free, rest=rest, last=last)
        )
        which = np.flatnonzero(counts)
        self._take_many(places[which], counts[which])
        in_turns: list[int] = places[_in_turns(which, counts[which], have, rest)].tolist()
        return in_turns

    def _within_blocks(self, amount: int, shared: Callable[[int], Column]) -> Column:
        """As many as can be shared out before a network has no block left for another node: those after them must do
        without the nodes that would need one."""
        networks = [self._draft.overlay(id) for id in self._wanted.holding.networks]

        def enough(counts: Column) -> bool:
            return not any(network.overdrawn(self._candidates.places, counts) for network in networks)

        if enough(counts := shared(amount)):
            return counts
        low, high = 0, amount
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if enough(shared(middle)) else (low, middle)
        return shared(low)

    def _have(self) -> Column:
        """How many of the service each node has, by place."""
        have = np.zeros(len(self._draft.total), np.int64)
        if self._own:
            have[list(self._own)] = list(self._own.values())
        return have


def _in_turns(which: Column, counts: Column, have: Column, rest: Column) -> Column:
    """Each of `which` as often as it counts, those with the least first."""
    found = np.repeat(which, counts)
    nth = np.arange(len(found)) - np.repeat(np.cumsum(counts) - counts, counts)
    order = np.lexsort((rest[found], have[found] + nth))
    in_turns: Column = found[order]
    return in_turns
