"""Published ports of services. An ingress port is open on every host, so each belongs to one service; a host-mode
port belongs to the host that runs the task, and the agent chooses its number where the user did not."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import msgspec

from shoal.errors import Exhausted
from shoal.model.network import Port, PortProtocol, PublishMode
from shoal.model.service import Service, ServiceSpec

DYNAMIC = range(30000, 32768)


def conflict(services: Iterable[Service], spec: ServiceSpec) -> Service | None:
    """Another service (by name) that has an ingress port which `spec` publishes, or publishes on its hosts one
    that `spec` wants in ingress mode."""
    ingress, host = _claims(spec.ports, PublishMode.INGRESS), _claims(spec.ports, PublishMode.HOST)
    for service in services:
        if service.spec.name == spec.name:
            continue
        its_ports = (*service.ports, *service.spec.ports)
        if not ingress.isdisjoint(_claims(its_ports, PublishMode.INGRESS) | _claims(its_ports, PublishMode.HOST)):
            return service
        if not host.isdisjoint(_claims(its_ports, PublishMode.INGRESS)):
            return service
    return None


def taken(services: Iterable[Service]) -> set[tuple[PortProtocol, int]]:
    """Every port number that some service has or asks for, so that a dynamic one never takes it."""
    return {
        (port.protocol, port.published)
        for service in services
        for port in (*service.ports, *service.spec.ports)
        if port.published
    }


def allocate(service: Service, taken: Collection[tuple[PortProtocol, int]]) -> tuple[Port, ...]:
    """The ports of its spec with every ingress one numbered: as asked for, or as it had, or the lowest free one.

    Raises Exhausted when there is none.
    """
    had = {(port.protocol, port.target): port for port in service.ports if port.mode == PublishMode.INGRESS}
    chosen: set[tuple[PortProtocol, int]] = set()
    out = []
    for port in service.spec.ports:
        if port.mode == PublishMode.INGRESS and not port.published:
            before = had.get((port.protocol, port.target))
            number = before.published if before and (port.protocol, before.published) not in chosen else 0
            number = number or _free(port.protocol, taken, chosen)
            port = msgspec.structs.replace(port, published=number)
        chosen.add((port.protocol, port.published))
        out.append(port)
    return tuple(out)


def _free(
    protocol: PortProtocol,
    taken: Collection[tuple[PortProtocol, int]],
    chosen: Collection[tuple[PortProtocol, int]],
) -> int:
    for number in DYNAMIC:
        if (protocol, number) not in taken and (protocol, number) not in chosen:
            return number
    raise Exhausted(f"all {protocol.name.lower()} ports from {DYNAMIC.start} to {DYNAMIC.stop - 1} are published")


def _claims(ports: Iterable[Port], mode: PublishMode) -> set[tuple[PortProtocol, int]]:
    return {(port.protocol, port.published) for port in ports if port.mode == mode and port.published}
