"""Filters: what rules a node out. Each can say how many it ruled out, in swarm's words, which people know.

A filter is how many more tasks each node can take by it. The least of them is what a node has room for; the first that
has none is the one that counts as its refusal, in the order of `Refusals`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from manager.scheduler.demand import Demand
from manager.scheduler.draft import Draft
from manager.scheduler.labels import Column, Mask
from manager.scheduler.load import RESOURCES

_TOO_LITTLE = "insufficient resources on {}"


class Filter(NamedTuple):
    """`words` take the number of nodes; `resource` is what there is too little of, if that is it."""

    words: str
    room: Column
    resource: str = ""


def room(draft: Draft, wanted: Demand, places: Column, have: Column, *, most: int) -> Column:
    """How many more tasks, up to `most`, each of `places` can take; `have` is how many of the service it has."""
    draft.looked += len(places)
    found = np.full(len(places), most, np.int64)
    for each in (*_of_resources(draft, wanted, places), *_of_rest(draft, wanted, places, have)):
        np.minimum(found, each.room, out=found)
    return np.maximum(found, 0, out=found)


class Refusals:
    """Why nodes do not take a task. To be asked when everything is placed: a later one may take what an earlier one
    did not want."""

    def __init__(self, draft: Draft, wanted: Demand, have: Column) -> None:
        """`have` by place."""
        draft.looked += 4 * len(have)
        everywhere = np.arange(len(have))
        filters = [
            Filter("{} not available for new tasks", draft.load.available.astype(np.int64)),
            *_of_resources(draft, wanted, everywhere),
            Filter("scheduling constraints not satisfied on {}", draft.load.meets(wanted.constraints).astype(np.int64)),
            *_of_rest(draft, wanted, everywhere, have),
        ]
        self._words = [each.words for each in filters]
        self._resources = [each.resource for each in filters if each.resource]
        self._order = draft.load.order()
        self._first = np.full(len(have), len(filters))  # which filter refuses each place
        self._lacks = np.zeros(len(have), np.int64)  # the resources of which it has too little, as bits
        self._known: dict[tuple[int, int], str] = {}
        for number, each in enumerate(filters):
            refused = each.room <= 0
            open = self._first == len(filters)
            if each.resource:
                # One that lacks two resources is counted once, and both are named.
                self._lacks[refused & (open | (self._lacks > 0))] |= 1 << self._resources.index(each.resource)
            self._first[refused & open] = number

    def everywhere(self) -> str:
        """Why no node takes the task; and of what they have too little, which swarm does not say."""
        if not len(self._order):
            return "no suitable node (the cluster has no node)"
        counts = np.bincount(self._first[self._order], minlength=len(self._words))
        return self._text(counts.tolist(), int(np.bitwise_or.reduce(self._lacks[self._order])))

    def at(self, place: int) -> str:
        """Why this node does not take it."""
        key = (self._first.item(place), self._lacks.item(place))
        if key not in self._known:
            self._known[key] = self._text([int(number == key[0]) for number in range(len(self._words))], key[1])
        return self._known[key]

    def _text(self, refused: list[int], lacks: int) -> str:
        counts: dict[str, int] = {}
        for words, count in zip(self._words, refused, strict=False):
            counts[words] = counts.get(words, 0) + count
        found = (words.format(_nodes(count)) for words, count in counts.items() if count)
        lacking = [name for bit, name in enumerate(self._resources) if lacks >> bit & 1]
        return f"no suitable node ({'; '.join(found)})" + (f": too little {', '.join(lacking)}" if lacking else "")


def fits(draft: Draft, wanted: Demand, place: int, have: int) -> bool:
    """Whether a candidate can take one more task: what `room` says, of one node."""
    free = draft.free
    for row, need in enumerate(wanted.amounts):
        if need and free.item(row, place) < need:
            return False
    if wanted.max_per_node and have >= wanted.max_per_node:
        return False
    if any(draft.taken(port).item(place) for port in wanted.holding.host_ports):
        return False
    return all(draft.overlay(id).has_room(place) for id in wanted.holding.networks)


def _of_resources(draft: Draft, wanted: Demand, places: Column) -> Iterator[Filter]:
    for row, (name, need) in enumerate(zip(RESOURCES, wanted.amounts, strict=True)):
        if need:
            yield Filter(_TOO_LITTLE, draft.free[row].take(places) // need, name)


def _of_rest(draft: Draft, wanted: Demand, places: Column, have: Column) -> Iterator[Filter]:
    """Ports, addresses and the service's own bound."""
    if wanted.holding.host_ports:
        taken: Mask = np.logical_or.reduce([draft.taken(port)[places] for port in wanted.holding.host_ports])
        yield Filter("host-mode port already in use on {}", (~taken).astype(np.int64))
    if wanted.max_per_node:
        yield Filter("max replicas per node limit exceeded on {}", wanted.max_per_node - have)
    for id in wanted.holding.networks:
        overlay = draft.overlay(id)
        name = overlay.name.replace("{", "{{").replace("}", "}}")
        yield Filter(f"no free address of network {name} on {{}}", overlay.left(places))


def _nodes(count: int) -> str:
    return f"{count} node" if count == 1 else f"{count} nodes"
