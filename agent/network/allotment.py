"""Allotment: which addresses and ports of this host its containers have. Decides and remembers; `fabric.py` writes
the records down and carries them out. In memory, for the event loop's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from ipaddress import IPv4Address

import msgspec

from agent.network.ipam import Pool
from agent.network.port import Held, Ports
from agent.network.record import Attached, Record
from agent.network.segment import Segment
from shoal import ids
from shoal.errors import Conflict
from shoal.model.network import NetworkAttachment, Port, PortProtocol
from shoal.names import link_parts


class Allotments:
    """`held` says whether a process of the host has a port, `chance` where random ports begin."""

    def __init__(self, held: Held, chance: Callable[[], float]) -> None:
        self._ports = Ports(held, chance)
        self._pools: dict[str, Pool] = {}
        self._records: dict[str, Record] = {}

    @property
    def records(self) -> Mapping[str, Record]:
        """By container id."""
        return self._records

    def load(self, records: Iterable[Record]) -> None:
        """What was given before this process began. `lay` comes after."""
        for record in records:
            self._records[record.container_id] = record
            self._ports.hold(record.container_id, record.ports)

    def lay(self, segments: Iterable[Segment], mesh: Iterable[tuple[PortProtocol, int]]) -> None:
        """These are the host's networks, and these the ports that the cluster publishes. The pool of a network
        whose block stayed goes on where it was."""
        self._ports.mesh(mesh)
        before, self._pools = self._pools, {}
        for segment in segments:
            pool = before.get(segment.network_id)
            if pool is None or pool.block != segment.block:
                pool = Pool(segment.name, segment.block, (segment.gateway, segment.block.network_address))
                for address in self._addresses(segment.network_id):
                    pool.hold(address)
            self._pools[segment.network_id] = pool

    def _addresses(self, network_id: str) -> list[IPv4Address]:
        return [
            IPv4Address(attached.address)
            for record in self._records.values()
            for attached in record.attached
            if attached.network_id == network_id
        ]

    def take(
        self,
        container_id: str,
        wanted: Sequence[tuple[Segment, NetworkAttachment]],
        *,
        name: str,
        aliases: Sequence[str],
        ports: Sequence[Port],
    ) -> Record:
        """Addresses, names and ports for a container: all or none. Its ports lead to the first network with a way
        outside, and are left out where there is none. Raises Exhausted."""
        names = (name, ids.short(container_id), *aliases)
        attached: list[Attached] = []
        try:
            attached.extend(self._attach(segment, attachment, names) for segment, attachment in wanted)
            internal = {segment.network_id for segment, _ in wanted if segment.internal}
            reached = next((each.address for each in attached if each.network_id not in internal), "")
            taken = self._ports.take(container_id, ports) if reached else ()
        except BaseException:
            self._release(attached)
            raise
        record = Record(container_id, name, tuple(attached), taken, reached)
        self._records[container_id] = record
        return record

    def _attach(self, segment: Segment, attachment: NetworkAttachment, names: Sequence[str]) -> Attached:
        """An address, the one wished for where there is one, and names."""
        pool = self._pools[segment.network_id]
        if attachment.address:
            address = IPv4Address(attachment.address)
            pool.claim(address)
        else:
            address = pool.take()
        known = tuple(dict.fromkeys(filter(None, (*names, *attachment.aliases)))) if segment.named else ()
        links = {alias: name for name, alias in map(link_parts, attachment.links)}
        return Attached(segment.network_id, segment.name, str(address), known, attachment.mac, links)

    def join(self, container_id: str, name: str, segment: Segment, attachment: NetworkAttachment) -> Record:
        """The record of a container that is on one more network. Its ports lead where they led. Raises Exhausted,
        and Conflict where it is on that network already."""
        record = self._records.get(container_id) or Record(container_id, name)
        if any(each.network_id == segment.network_id for each in record.attached):
            raise Conflict(f"endpoint with name {name} already exists in network {segment.name}")
        attached = self._attach(segment, attachment, (name, ids.short(container_id)))
        joined = msgspec.structs.replace(record, attached=(*record.attached, attached))
        self._records[container_id] = joined
        return joined

    def leave(self, record: Record, network_id: str, *, internal: Container[str]) -> Record:
        """`record` without this network; its ports lead to the next one with a way outside, or nowhere."""
        rest = tuple(each for each in record.attached if each.network_id != network_id)
        reached = next((each.address for each in rest if each.network_id not in internal), "")
        if record.reached in [each.address for each in rest]:
            reached = record.reached
        left = self._records[record.container_id] = msgspec.structs.replace(record, attached=rest, reached=reached)
        self._release(each for each in record.attached if each.network_id == network_id)
        return left

    def rename(self, container_id: str, name: str) -> Record | None:
        """Its record with another name, or None where it has none or that name already."""
        record = self._records.get(container_id)
        if record is None or record.name == name:
            return None
        attached = tuple(
            msgspec.structs.replace(
                each, names=tuple(dict.fromkeys(name if word == record.name else word for word in each.names))
            )
            for each in record.attached
        )
        renamed = self._records[container_id] = msgspec.structs.replace(record, name=name, attached=attached)
        return renamed

    def give_back(self, record: Record) -> None:
        """What `record` says is free, unless it was so already."""
        if self._records.get(record.container_id) is not record:
            return
        del self._records[record.container_id]
        self._ports.release(record.container_id, record.ports)
        self._release(record.attached)

    def _release(self, attached: Iterable[Attached]) -> None:
        for each in attached:
            if each.network_id in self._pools:
                self._pools[each.network_id].release(IPv4Address(each.address))

    def users(self, network_id: str) -> list[str]:
        """The containers on a network, by name."""
        return sorted(
            record.name or ids.short(record.container_id)
            for record in self._records.values()
            if any(attached.network_id == network_id for attached in record.attached)
        )
