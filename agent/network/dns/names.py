"""Which names a network has: from its containers here and the cluster's services. Pure.

A container is found by its name, its short id and its aliases; a service by its name and aliases (its VIP, or all
its tasks where it has none), `tasks.NAME` (all its tasks), and each of its tasks on any host by `NAME.SLOT.TASK`. What
a container alone calls others by its links is in the zone of each network where it may ask.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from agent.network.dns.zone import Zone
from agent.network.record import Record
from agent.network.segment import Segment
from shoal.model.network import Backend, Endpoint


def zone_of(
    segment: Segment, records: Iterable[Record], endpoints: Iterable[Endpoint], gateways: Mapping[str, str]
) -> Zone:
    """The zone of one network. `gateways`: by id of every network here that has names."""
    names: dict[str, set[str]] = {}
    pointers: dict[str, str] = {}
    clients: dict[str, list[str]] = {}
    links: dict[str, dict[str, dict[str, str]]] = {}

    def say(name: str, addresses: Iterable[str]) -> None:
        names.setdefault(name.lower(), set()).update(addresses)

    for endpoint in endpoints:
        if endpoint.network_id == segment.network_id:
            for name, addresses in _service_names(endpoint):
                say(name, addresses)
            for backend in _running(endpoint):
                pointers[backend.address] = f"{_task_name(endpoint, backend)}.{segment.name}"
            if endpoint.address:
                pointers[endpoint.address] = f"{endpoint.service_name}.{segment.name}"
    for record in records:
        for attached in record.attached:
            if attached.network_id == segment.network_id:
                for name in attached.names:
                    say(name, (attached.address,))
                pointers.setdefault(attached.address, f"{attached.names[0]}.{segment.name}" if attached.names else "")
                others = [gateways[each.network_id] for each in record.attached if each.network_id in gateways]
                others = [gateway for gateway in others if gateway != str(segment.gateway)]
                if others:
                    clients[attached.address] = others
                linked = [each for each in record.attached if each.links and each.network_id in gateways]
                if linked:
                    links[attached.address] = {gateways[each.network_id]: _lower(each.links) for each in linked}
    return Zone(
        network=segment.name,
        internal=segment.internal,
        names={name: sorted(addresses) for name, addresses in names.items()},
        pointers={address: name for address, name in pointers.items() if name},
        clients=clients,
        links=links,
    )


def _lower(links: Mapping[str, str]) -> dict[str, str]:
    return {alias.lower(): name.lower() for alias, name in links.items()}


def _service_names(endpoint: Endpoint) -> Iterable[tuple[str, list[str]]]:
    tasks = [backend.address for backend in _running(endpoint)]
    reached = [endpoint.address] if endpoint.address else tasks
    for name in (endpoint.service_name, *endpoint.aliases):
        yield name, reached
        yield f"tasks.{name}", tasks
    for backend in _running(endpoint):
        yield _task_name(endpoint, backend), [backend.address]


def _running(endpoint: Endpoint) -> list[Backend]:
    return [backend for backend in endpoint.backends if backend.address]


def _task_name(endpoint: Endpoint, backend: Backend) -> str:
    return f"{endpoint.service_name}.{backend.slot or backend.node_id}.{backend.task_id}"
