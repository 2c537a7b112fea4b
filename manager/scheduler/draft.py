"""Draft: a copy of the load to place tasks on, while a plan is being made. It only gets fuller."""

from __future__ import annotations

import numpy as np

from manager.scheduler.candidates import Branch, Candidates
from manager.scheduler.demand import Demand, HostPort
from manager.scheduler.emptiest import Emptiest
from manager.scheduler.labels import Column, Mask
from manager.scheduler.load import Load
from manager.scheduler.overlay import Overlay


class Draft:
    """`looked` counts the nodes that were looked at, so that a round can be cut off."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.free = load.free.copy()
        self.total = load.total.copy()
        self.looked = 0
        self._taken: dict[HostPort, Mask] = {}
        self._overlays: dict[str, Overlay] = {}
        self._emptiest: dict[tuple[Candidates, Branch], Emptiest] = {}

    def taken(self, port: HostPort) -> Mask:
        """Where a port of the host is in use."""
        if port not in self._taken:
            taken = self._taken[port] = np.zeros(len(self.total), np.bool_)
            taken[list(self.load.host_ports.get(port, ()))] = True
        return self._taken[port]

    def overlay(self, id: str) -> Overlay:
        if id not in self._overlays:
            self._overlays[id] = self.load.overlay(id)
        return self._overlays[id]

    def emptiest(self, candidates: Candidates, branch: Branch) -> Emptiest:
        """The nodes of a branch, by how many tasks they have now."""
        found = self._emptiest.get((candidates, branch))
        if found is None:
            self.looked += branch.end - branch.begin
            found = Emptiest(self.total, candidates.places[branch.begin : branch.end])
            self._emptiest[candidates, branch] = found
        return found

    def place(self, wanted: Demand, places: Column, counts: Column) -> None:
        """So many more tasks that take `wanted` are at these places, which are distinct."""
        self.total[places] += counts
        for row, need in enumerate(wanted.amounts):
            if need:
                self.free[row, places] -= need * counts
        for port in wanted.holding.host_ports:
            self.taken(port)[places[counts > 0]] = True
        for network in wanted.holding.networks:
            self.overlay(network).take(places, counts)

    def place_one(self, wanted: Demand, place: int) -> None:
        """The same for one task: a few numbers are written faster one by one."""
        self.total[place] += 1
        for row, need in enumerate(wanted.amounts):
            if need:
                self.free[row, place] -= need
        for port in wanted.holding.host_ports:
            self.taken(port)[place] = True
        for network in wanted.holding.networks:
            self.overlay(network).take(np.array([place]), np.ones(1, np.int64))
