"""Filters: what rules a node out. Each can say how many it ruled out, in swarm's words, which people know.

The first one that refuses a node is the one that counts, in the order of `explain`.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable

from manager.control.constraint import hold
from manager.scheduler.load import Addresses, Demand, Load
from shoal.model.node import Availability, Node, NodeState
from shoal.model.service import Service, TaskSpec

# A filter's words (with the number of nodes put in), and whether the node at a place passes.
Filter = tuple[str, Callable[[int], bool]]
_TOO_LITTLE = "insufficient resources on {}"


def available(node: Node) -> bool:
    return node.status.state == NodeState.READY and node.spec.availability == Availability.ACTIVE


class Filters:
    """The filters of one service, over the columns of a load."""

    def __init__(self, load: Load, service: Service, wanted: Demand) -> None:
        self._load = load
        self._spec = service.spec.task
        self._resources = _of_resources(load, wanted)
        self._room = _of_room(load, service, wanted)

    def candidates(self) -> list[int]:
        """The nodes that pass the filters which no placement changes. Computed once for all services that have the
        same constraints."""
        constraints = self._spec.placement.constraints
        known = self._load.candidates.get(constraints)
        if known is None:
            nodes = enumerate(self._load.nodes)
            known = [place for place, node in nodes if available(node) and hold(constraints, node)]
            self._load.candidates[constraints] = known
        return known

    def fits(self, place: int) -> bool:
        """Whether a candidate can take one more task now."""
        return all(passes(place) for _, passes in self._resources) and all(passes(place) for _, passes in self._room)

    @functools.cached_property
    def explained(self) -> str:
        """Why no node takes the task. Found out once: to be asked when everything is placed."""
        return self.explain(range(len(self._load.nodes)))

    def explain(self, places: Iterable[int]) -> str:
        """Why none of these nodes takes the task; and of what they have too little, which swarm does not say."""
        refusals: Counter[str] = Counter()
        short: Counter[str] = Counter()
        filters = [
            *_of_availability(self._load),
            (_TOO_LITTLE, lambda place: all(passes(place) for _, passes in self._resources)),
            *_of_constraints(self._load, self._spec),
            *self._room,
        ]
        for place in places:
            words = next((words for words, passes in filters if not passes(place)), "")
            refusals[words] += bool(words)
            if words == _TOO_LITTLE:
                short.update(word for word, passes in self._resources if not passes(place))
        if not refusals:
            return "no suitable node (the cluster has no node)"
        found = (words.format(_nodes(refusals[words])) for words, _ in filters if refusals[words])
        lacking = ", ".join(word for word, _ in self._resources if short[word])
        return f"no suitable node ({'; '.join(dict.fromkeys(found))})" + (f": too little {lacking}" if lacking else "")


def _of_availability(load: Load) -> list[Filter]:
    return [("{} not available for new tasks", lambda place: available(load.nodes[place]))]


def _of_constraints(load: Load, spec: TaskSpec) -> list[Filter]:
    constraints = spec.placement.constraints
    return [("scheduling constraints not satisfied on {}", lambda place: hold(constraints, load.nodes[place]))]


def _of_resources(load: Load, wanted: Demand) -> list[Filter]:
    """By the resource's name."""
    need, free = wanted.resources, load.free
    filters: list[Filter] = []
    if need.nano_cpus:
        filters.append(("CPU", lambda place: free[place].nano_cpus >= need.nano_cpus))
    if need.memory_bytes:
        filters.append(("memory", lambda place: free[place].memory_bytes >= need.memory_bytes))
    if need.pids:
        filters.append(("pids", lambda place: free[place].pids >= need.pids))
    return filters


def _of_room(load: Load, service: Service, wanted: Demand) -> list[Filter]:
    """Ports, addresses and the service's own bound."""
    filters: list[Filter] = []
    if wanted.host_ports:
        taken = [load.host_ports[port] for port in wanted.host_ports]
        filters.append(("host-mode port already in use on {}", lambda place: all(place not in each for each in taken)))
    if most := service.spec.task.placement.max_per_node:
        count = load.of_service[service.meta.id]
        filters.append(("max replicas per node limit exceeded on {}", lambda place: count[place] < most))
    filters += [_of_addresses(load.network(id)) for id in wanted.networks]
    return filters


def _of_addresses(network: Addresses) -> Filter:
    name = network.name.replace("{", "{{").replace("}", "}}")
    return (f"no free address of network {name} on {{}}", lambda place: network.left(place) > 0)


def _nodes(count: int) -> str:
    return f"{count} node" if count == 1 else f"{count} nodes"
