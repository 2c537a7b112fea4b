"""Demand: what one task of a service takes of a node, and where it may stand. Equal tasks have equal demands."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from manager.control.attachment import overlays_of
from manager.store.view import View
from shoal.model.base import Resources
from shoal.model.network import PortProtocol, PublishMode
from shoal.model.service import Service

HostPort: TypeAlias = tuple[PortProtocol, int]


class Holding(msgspec.Struct, frozen=True):
    """What a task has of its node besides resources: ports of the host, and an address on each of these networks."""

    host_ports: tuple[HostPort, ...] = ()
    networks: tuple[str, ...] = ()


NOTHING_HELD = Holding()


class Demand(msgspec.Struct, frozen=True):
    """`bound_to` is the service that `max_per_node` counts, and empty without a maximum: so that services which ask
    for the same have one demand."""

    constraints: tuple[str, ...]
    reservations: Resources
    holding: Holding
    max_per_node: int
    bound_to: str

    @property
    def amounts(self) -> tuple[int, int, int]:
        """What is reserved, in the order of `load.RESOURCES`."""
        return amounts(self.reservations)


def amounts(resources: Resources) -> tuple[int, int, int]:
    return resources.nano_cpus, resources.memory_bytes, resources.pids


def demand(view: View, service: Service) -> Demand:
    """Of a task of the present version."""
    spec = service.spec.task
    most = spec.placement.max_per_node
    held = holding(view, service)
    return Demand(spec.placement.constraints, spec.reservations, held, most, service.meta.id if most else "")


def holding(view: View, service: Service) -> Holding:
    """Of a task of the present version."""
    if not service.spec.ports and not service.spec.task.networks:
        return NOTHING_HELD
    ports = (
        (port.protocol, port.published)
        for port in service.spec.ports
        if port.mode == PublishMode.HOST and port.published
    )
    return Holding(tuple(ports), tuple(network.meta.id for network in overlays_of(view, service)))


def holdings(view: View, service: Service) -> dict[int, Holding]:
    """By version, the present one first. Only the one before is known besides: tasks of yet older versions count as if
    they were present ones."""
    found = {service.task_version: holding(view, service)}
    before = service.outgoing
    if before is not None and (before.ports, before.task.networks) != (service.spec.ports, service.spec.task.networks):
        found[service.task_version - 1] = holding(view, msgspec.structs.replace(service, spec=before))
    return found
