"""Directory: the zone files of this host, kept as its networks, containers and services are.

Many containers that start at once become few writes: whoever comes while one is under way waits for the next,
which serves all who wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from agent.network.dns.names import zone_of
from agent.network.dns.process import ResolverProcess
from agent.network.dns.zone import Zone, dump
from agent.network.record import Record
from agent.network.segment import Segment
from shoal.files import read_optional, sweep_unfinished, write_atomic
from shoal.model.network import Endpoint

Work = Callable[[Callable[[], bool]], Awaitable[bool]]


class Directory:
    """`records` is the living table of who has which address; `work` runs a function in the network's thread."""

    def __init__(self, process: ResolverProcess, records: Mapping[str, Record], work: Work) -> None:
        self._process = process
        self._records = records
        self._work = work
        self._segments: dict[str, Segment] = {}
        self._endpoints: tuple[Endpoint, ...] = ()
        self._stale: set[str] = set()
        self._listening = False
        self._writing = asyncio.Lock()

    async def replace(self, segments: Iterable[Segment], endpoints: Sequence[Endpoint]) -> None:
        """These networks and services, on disk and listened for when this returns."""
        self._segments = {segment.network_id: segment for segment in segments if segment.named}
        self._endpoints = tuple(endpoints)
        await self.touch(self._segments, always=True)

    async def touch(self, network_ids: Iterable[str], *, always: bool = False) -> None:
        """Containers on these networks came or went; their names are on disk when this returns."""
        self._stale.update(network_id for network_id in network_ids if network_id in self._segments)
        if not self._stale and not always:
            return
        async with self._writing:
            stale, self._stale = self._stale, set()
            if not stale and not always:
                return
            try:
                zones = self._zones(stale)
                gateways = {str(segment.gateway) for segment in self._segments.values()}
                if await self._work(lambda: self._write(zones, gateways)) or not self._listening:
                    self._listening = False
                    await self._process.refresh()
                    self._listening = True
            except BaseException:
                self._stale |= stale
                raise

    async def close(self) -> None:
        await self._process.close()

    def _zones(self, network_ids: set[str]) -> dict[str, Zone]:
        """By gateway."""
        gateways = {network_id: str(segment.gateway) for network_id, segment in self._segments.items()}
        records: dict[str, list[Record]] = {}
        for record in self._records.values():
            for network_id in {attached.network_id for attached in record.attached} & network_ids:
                records.setdefault(network_id, []).append(record)
        endpoints: dict[str, list[Endpoint]] = {}
        for endpoint in self._endpoints:
            endpoints.setdefault(endpoint.network_id, []).append(endpoint)
        return {
            gateways[network_id]: zone_of(
                self._segments[network_id], records.get(network_id, ()), endpoints.get(network_id, ()), gateways
            )
            for network_id in network_ids & self._segments.keys()
        }

    def _write(self, zones: Mapping[str, Zone], gateways: set[str]) -> bool:
        """Whether a gateway came or went."""
        folder = self._process.zones
        folder.mkdir(parents=True, exist_ok=True)
        sweep_unfinished(folder)
        there = {path.name.removesuffix(".json") for path in folder.glob("*.json")}
        for gateway in there - gateways:
            (folder / f"{gateway}.json").unlink(missing_ok=True)
        for gateway, zone in zones.items():
            path = folder / f"{gateway}.json"
            data = dump(zone)
            if read_optional(path) != data:
                write_atomic(path, data, durable=False)
        return there != gateways
