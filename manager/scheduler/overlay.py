"""Overlay: how many more containers each node can give an address on one network.

`Usage` is what the records say, counted as they come; `Overlay` the columns that a plan works with. A node without a
lease can have one as long as there are free blocks: this is the one thing that a task takes from all nodes.
"""

from __future__ import annotations

import math
from collections import Counter

import numpy as np

from manager.scheduler.labels import Column
from shoal.model.network import Network


class Usage:
    """Of one network: containers and leased blocks by the place of their node, and addresses of services."""

    def __init__(self) -> None:
        self.used: Counter[int] = Counter()
        self.leased: dict[int, int] = {}
        self.addresses = 0

    def lease(self, place: int, prefix: int | None) -> None:
        """The node at `place` has a block of this prefix; None: none any more."""
        if prefix is None:
            self.leased.pop(place, None)
        else:
            self.leased[place] = prefix


class Overlay:
    def __init__(self, id: str, network: Network | None, usage: Usage, size: int) -> None:
        self.name = network.spec.name if network else id
        self._block = addresses_in(network.block_prefix) if network else 0
        self._blocks = _free_blocks(network, usage) if network else 0
        self._left = np.zeros(size, np.int64)
        self._fresh = np.ones(size, np.bool_)
        for prefix, places in _by_prefix(usage.leased).items():
            self._left[places] = addresses_in(prefix)
            self._fresh[places] = False
        if usage.used:
            self.take(np.fromiter(usage.used.keys(), np.int64), np.fromiter(usage.used.values(), np.int64))

    def left(self, places: Column) -> Column:
        return np.where(self._fresh[places], self._block if self._blocks > 0 else 0, self._left[places])

    def has_room(self, place: int) -> bool:
        """Whether one more gets an address there."""
        return self._block > 0 < self._blocks if self._fresh.item(place) else self._left.item(place) > 0

    def overdrawn(self, places: Column, counts: Column) -> bool:
        """Whether so many more containers need more blocks than there are."""
        return int(np.count_nonzero(self._fresh[places] & (counts > 0))) > max(0, self._blocks)

    def take(self, places: Column, counts: Column) -> None:
        """So many more containers are at these places, which are distinct."""
        new = places[self._fresh[places] & (counts > 0)]
        self._blocks -= len(new)
        self._fresh[new] = False
        self._left[new] = self._block
        self._left[places] -= counts


def addresses_in(prefix: int) -> int:
    """How many containers can have an address of a block: all but its first, its last and the gateway."""
    return (1 << (32 - prefix)) - 3


def prefix_of(subnet: str) -> int:
    return int(subnet.rpartition("/")[2])


def _free_blocks(network: Network, usage: Usage) -> int:
    """How many more nodes can take part: blocks that neither a node nor a service address is in."""
    if not network.subnet:
        return 0
    total = 1 << (network.block_prefix - prefix_of(network.subnet))
    leased = sum(count << (network.block_prefix - prefix) for prefix, count in Counter(usage.leased.values()).items())
    room_for_services = (1 << (32 - network.block_prefix)) - 1
    return total - leased - max(1, math.ceil(usage.addresses / room_for_services))


def _by_prefix(leased: dict[int, int]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for place, prefix in leased.items():
        found.setdefault(prefix, []).append(place)
    return found
