"""Load: what each node carries, in columns, while a plan is being made.

A node is its place in these columns (ordered by id). What a task reserves is held until it has ended; what counts
for spreading is what is to run. `place` keeps the columns current with what the plan decides.
"""

from __future__ import annotations

from collections import Counter, defaultdict

import msgspec

from manager.control.attachment import addresses_in, free_blocks, overlays_of, prefix_of
from manager.store.view import View
from shoal.model.base import Resources
from shoal.model.network import PortProtocol, PublishMode
from shoal.model.service import Service
from shoal.model.task import TaskState


class Demand(msgspec.Struct, frozen=True):
    """What one task of a service takes of a node: `resources` are reserved for a new one."""

    service_id: str
    resources: Resources
    host_ports: tuple[tuple[PortProtocol, int], ...]
    networks: tuple[str, ...]


def demand(view: View, service: Service) -> Demand:
    """Of a task of the present version."""
    return Demand(
        service.meta.id,
        service.spec.task.reservations,
        tuple(
            (port.protocol, port.published)
            for port in service.spec.ports
            if port.mode == PublishMode.HOST and port.published
        ),
        tuple(network.meta.id for network in overlays_of(view, service)),
    )


class Load:
    def __init__(self, view: View) -> None:
        self.nodes = [view.nodes[id] for id in sorted(view.nodes)]
        self.index = {node.meta.id: place for place, node in enumerate(self.nodes)}
        self.free = [_Free(node.description.resources) for node in self.nodes]
        self.total = [0] * len(self.nodes)
        self.of_service: dict[str, Counter[int]] = defaultdict(Counter)
        self.host_ports: dict[tuple[PortProtocol, int], set[int]] = defaultdict(set)
        self.addresses: dict[str, Addresses] = {}
        self.candidates: dict[tuple[str, ...], list[int]] = {}
        self._view = view
        for service_id in view.services_with_tasks():
            self._count(service_id)

    def place(self, place: int, wanted: Demand) -> None:
        """One more task that takes `wanted` is on the node at `place`."""
        self.total[place] += 1
        self.of_service[wanted.service_id][place] += 1
        self._hold(place, wanted, wanted.resources)

    def network(self, id: str) -> Addresses:
        """What is left on an overlay, as seen from each node."""
        if id not in self.addresses:
            self.addresses[id] = Addresses(self._view, id, self.index)
        return self.addresses[id]

    def _count(self, service_id: str) -> None:
        demands = _demands(self._view, service_id)
        present = next(iter(demands.values()))
        for task in self._view.tasks_of_service(service_id):
            place = self.index.get(task.node_id)
            if place is None or task.finished or task.status.state < TaskState.ASSIGNED:
                continue
            if task.desired <= TaskState.RUNNING:
                self.total[place] += 1
                self.of_service[service_id][place] += 1
            self._hold(place, demands.get(task.task_version, present), task.reservations)

    def _hold(self, place: int, wanted: Demand, reserved: Resources) -> None:
        if reserved != _NOTHING:
            self.free[place].take(reserved)
        for port in wanted.host_ports:
            self.host_ports[port].add(place)
        for network in wanted.networks:
            self.network(network).take(place)


class _Free:
    """What is not reserved on one node. A node that does not limit pids has all of them."""

    __slots__ = ("memory_bytes", "nano_cpus", "pids")

    def __init__(self, resources: Resources) -> None:
        self.nano_cpus = resources.nano_cpus
        self.memory_bytes = resources.memory_bytes
        self.pids = resources.pids or 1 << 62

    def take(self, taken: Resources) -> None:
        self.nano_cpus -= taken.nano_cpus
        self.memory_bytes -= taken.memory_bytes
        self.pids -= taken.pids


class Addresses:
    """How many more containers each node can give an address on one overlay. A node without a lease can have one
    as long as there are free blocks."""

    def __init__(self, view: View, network_id: str, index: dict[str, int]) -> None:
        network = view.networks.get(network_id)
        self.name = network.spec.name if network else network_id
        self._left = {
            index[lease.node_id]: addresses_in(prefix_of(lease.block))
            for lease in view.leases_of_network(network_id)
            if lease.node_id in index
        }
        self._blocks = free_blocks(view, network) if network else 0
        self._block_size = addresses_in(network.block_prefix) if network else 0

    def left(self, place: int) -> int:
        known = self._left.get(place)
        return (self._block_size if self._blocks > 0 else 0) if known is None else known

    def take(self, place: int) -> None:
        if place not in self._left:
            self._blocks -= 1
            self._left[place] = self._block_size
        self._left[place] -= 1


_NOTHING = Resources()


def _demands(view: View, service_id: str) -> dict[int, Demand]:
    """By version, the present one first. Only the one before is known besides; tasks of a service that is gone, or of
    yet older versions, count as if they were present ones, but for what was reserved for them."""
    service = view.services.get(service_id)
    if service is None:
        return {0: Demand(service_id, _NOTHING, (), ())}
    demands = {service.task_version: demand(view, service)}
    before = service.outgoing
    if before is not None and (before.ports, before.task.networks) != (service.spec.ports, service.spec.task.networks):
        demands[service.task_version - 1] = demand(view, msgspec.structs.replace(service, spec=before))
    return demands
