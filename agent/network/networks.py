"""Networks: the network of this host, for those who run containers and for the cluster.

What holds: an address or port is recorded before it is used; a failed or cancelled `connect` leaves nothing; what
a container had is free again after `disconnect`; `assign` is the cluster's whole wish and may be repeated. A killed
agent loses nothing and leaves nothing that the next one does not find.

The order of a start: `connect` makes a namespace and holds it by a descriptor, whose path it returns; the runtime
enters it; `started` lets go, and from then on the kernel removes it with the container's last process.

Decided in `allotment`, said in `dns/directory`, done in `fabric`, which runs in one thread of its own because the
kernel makes its callers wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import random
import time
from collections.abc import Callable, Container, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from agent.kernel.netns import Namespace
from agent.network import balance, bridge, connection, hosts, port
from agent.network.allotment import Allotments
from agent.network.connection import Connection
from agent.network.dns.directory import Directory
from agent.network.dns.process import ResolverProcess
from agent.network.fabric import Fabric
from agent.network.record import Record, Wish
from agent.network.sandbox import Sandbox
from agent.network.segment import Segment
from agent.network.wish import check_wish
from shoal import ids
from shoal.clock import Clock
from shoal.errors import Conflict, InvalidArgument, NotFound, ShoalError
from shoal.model.assignment import NetworkAssignment
from shoal.model.event import Event, EventKind, Tell, to_nobody
from shoal.model.network import Endpoint, Network, NetworkAttachment, NetworkSpec, Port, PortProtocol

log = logging.getLogger(__name__)

T = TypeVar("T")
MEND_S = 5.0
_BRIDGE = NetworkAttachment(network=bridge.DEFAULT)


class Networks:
    """Made by `open`."""

    def __init__(
        self,
        thread: ThreadPoolExecutor,
        fabric: Fabric,
        resolver: ResolverProcess,
        chance: Callable[[], float],
        tell: Tell,
    ) -> None:
        self._tell_event = tell
        self._thread = thread
        self._fabric = fabric
        self._allotments = Allotments(self._held, chance)
        # As the allotments know them: while the fabric changes, its own may be ahead.
        self._segments: tuple[Segment, ...] = ()
        self._directory = Directory(resolver, self._allotments.records, self._in_thread)
        self._host = hosts.Host(resolver.resolv_conf)
        self._sandboxes: dict[str, Sandbox] = {}
        self._changing = asyncio.Lock()
        self._settled = False
        self._refill: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        *,
        data_dir: Path,
        run_dir: Path,
        chance: Callable[[], float] = random.random,
        now_ns: Callable[[], int] = time.time_ns,
        resolv_conf: Path = hosts.RESOLV_CONF,
        tell: Tell = to_nobody,
    ) -> Networks:
        """Take over what is there, make what must be. The cluster's networks are as last assigned.

        Raises Unsupported on a host without nftables.
        """
        folder = run_dir / "network"
        thread = ThreadPoolExecutor(1, thread_name_prefix="network")
        try:
            make = functools.partial(Fabric, data_dir=data_dir, folder=folder, chance=chance, now_ns=now_ns)
            fabric = await _run(thread, make)
            try:
                records = await _run(thread, fabric.take_over)
            except BaseException:
                await _run(thread, fabric.close)
                raise
        except BaseException:
            thread.shutdown(wait=False)
            raise
        self = cls(thread, fabric, ResolverProcess(folder, resolv_conf, chance), chance, tell)
        self._allotments.load(records)
        try:
            await self._tell()
        except ShoalError as error:
            log.error("names of containers do not resolve: %s", error)
        return self

    async def run(self, clock: Clock) -> None:
        """Keep the host's firewall right, for as long as the agent lives."""
        failing = False
        while True:
            await clock.sleep(MEND_S)
            try:
                await self.mend()
                failing = False
            except ShoalError as error:
                if not failing:
                    log.error("the firewall cannot be put right, trying again: %s", error)
                failing = True

    async def mend(self) -> None:
        """Undo what other programs of this host (Docker, ufw, `nft flush ruleset`) did to the firewall."""
        await self._in_thread(self._fabric.mend)

    async def close(self) -> None:
        """Let go of everything that only this process holds; containers, devices, table and resolver stay."""
        if self._refill is not None:
            await asyncio.wait([self._refill])
        await self._directory.close()
        for container_id in list(self._sandboxes):
            await self.started(container_id)
        await self._in_thread(self._fabric.close)
        self._thread.shutdown()

    # -- containers -------------------------------------------------------------------------------

    async def connect(
        self,
        container_id: str,
        *,
        name: str = "",
        hostname: str = "",
        attachments: Sequence[NetworkAttachment] = (),
        ports: Sequence[Port] = (),
        aliases: Sequence[str] = (),
        namespace: Namespace | None = None,
    ) -> Connection:
        """A namespace with an address on each network asked for, ports published, names known.

        No attachment means the default bridge network; `namespace` is one made before. `aliases` count on every
        network that has names. On the host's network, or on none, ports are not published. Raises NotFound for a
        network, Exhausted for a busy port or a full network; nothing is left behind then, or when cancelled.
        """
        await self.disconnect(container_id)
        wanted = tuple(attachments) or (_BRIDGE,)
        apart = next((each.network for each in wanted if each.network in ("host", "none")), "")
        own, reachable = self._host.resolvers()
        if apart and len(wanted) > 1:
            raise InvalidArgument(f"conflicting options: network {apart} cannot go with other networks")
        if apart == "host":
            return connection.on_host(own, reachable)
        if apart == "none":
            sandbox = await self._keep(container_id, lambda: self._fabric.lone(namespace))
            return connection.on_none(sandbox.path, own, reachable)
        segments = self._segments_of(wanted)
        record = self._allotments.take(
            container_id, list(zip(segments, wanted, strict=True)), name=name, aliases=aliases, ports=ports
        )
        try:
            sandbox = await self._keep(container_id, lambda: self._fabric.plug_in(record, segments, namespace))
            await self._directory.touch(segment.network_id for segment in segments)
        except BaseException:
            await asyncio.shield(self.disconnect(container_id))
            raise
        self._prepare_next()
        for segment in segments:
            self._happened("connect", segment.network_id, segment.name, container=container_id)
        return connection.on_networks(record, segments, sandbox.path, hostname=hostname, own=own, reachable=reachable)

    async def _keep(self, container_id: str, make: Callable[[], Sandbox]) -> Sandbox:
        """Hold what `make` makes until `started` or `disconnect`, even when cancelled meanwhile."""

        def work() -> Sandbox:
            sandbox = self._sandboxes[container_id] = make()
            return sandbox

        return await self._in_thread(work)

    async def started(self, container_id: str) -> None:
        """The container's process is in its namespace, or never will be."""
        sandbox = self._sandboxes.pop(container_id, None)
        if sandbox is not None:
            sandbox.close()

    async def disconnect(self, container_id: str) -> None:
        """Give back ports, addresses and names; the namespace goes with its last process. Idempotent."""
        await self.started(container_id)
        record = self._allotments.records.get(container_id)
        if record is None:
            return
        if record.ports:
            await self._in_thread(lambda: self._fabric.unplug(record))
        else:
            self._fabric.forget(record)
        self._allotments.give_back(record)
        await self._directory.touch(attached.network_id for attached in record.attached)
        for attached in record.attached:
            self._happened("disconnect", attached.network_id, attached.network_name, container=container_id)

    async def join(
        self, container_id: str, attachment: NetworkAttachment, *, name: str, hostname: str, netns_path: str
    ) -> Connection:
        """One more network for a container that runs in the namespace at `netns_path`; all that it then has.

        Raises what `connect` does, and Conflict where it is on that network; nothing has changed then.
        """
        [segment] = self._segments_of([attachment])
        record = self._allotments.join(container_id, name, segment, attachment)
        try:
            await self._in_thread(lambda: self._fabric.extend(record, netns_path, segment))
        except BaseException:
            before = self._allotments.leave(record, segment.network_id, internal=())
            await self._in_thread(lambda: self._fabric.note(before))
            raise
        await self._directory.touch(attached.network_id for attached in record.attached)
        self._happened("connect", segment.network_id, segment.name, container=container_id)
        return self._connection(record, netns_path, hostname)

    async def leave(self, container_id: str, network_id: str, *, hostname: str, netns_path: str) -> Connection:
        """One network less for a container that runs; all that it then has. Ports that led there lead to the next
        network with a way outside, or nowhere."""
        before = self._allotments.records[container_id]
        internal = {each.network_id for each in self._segments if each.internal}
        after = self._allotments.leave(before, network_id, internal=internal)
        known = {each.network_id: each for each in self._segments}
        segments = [known[each.network_id] for each in after.attached]
        await self._in_thread(lambda: self._fabric.shorten(before, after, netns_path, segments))
        await self._directory.touch(attached.network_id for attached in before.attached)
        self._happened("disconnect", network_id, known[network_id].name, container=container_id)
        return self._connection(after, netns_path, hostname)

    def _connection(self, record: Record, netns_path: str, hostname: str) -> Connection:
        own, reachable = self._host.resolvers()
        known = {each.network_id: each for each in self._segments}
        segments = [known[each.network_id] for each in record.attached]
        return connection.on_networks(record, segments, netns_path, hostname=hostname, own=own, reachable=reachable)

    async def rename(self, container_id: str, name: str) -> None:
        """From now on others find it by this name. Idempotent, and nothing for one that is not connected."""
        record = self._allotments.rename(container_id, name)
        if record is None:
            return
        await self._in_thread(lambda: self._fabric.note(record))
        await self._directory.touch(attached.network_id for attached in record.attached)

    async def adopt(self, running: Container[str]) -> None:
        """These containers run; what any other had is free again."""
        for container_id in [each for each in self._allotments.records if each not in running]:
            await self.disconnect(container_id)

    def _segments_of(self, attachments: Sequence[NetworkAttachment]) -> tuple[Segment, ...]:
        known = {segment.network_id: segment for segment in self._segments}
        found = []
        for attachment in attachments:
            network = self.get(attachment.network or bridge.DEFAULT)
            segment = known.get(network.meta.id)
            if segment is None:
                raise NotFound(f"network {attachment.network} is not ready on this host")
            check_wish(attachment, segment, network)
            found.append(segment)
        if len({segment.network_id for segment in found}) < len(found):
            raise InvalidArgument("a container cannot be on the same network twice")
        return tuple(found)

    def _prepare_next(self) -> None:
        """Make the next namespace ready while nobody waits for it."""

        async def work() -> None:
            try:
                await self._in_thread(self._fabric.refill)
            except ShoalError as error:
                log.warning("cannot prepare a network namespace: %s", error)

        if self._fabric.short and (self._refill is None or self._refill.done()):
            self._refill = asyncio.create_task(work(), name="network-refill")

    def _held(self, protocol: PortProtocol, address: str, number: int) -> bool:
        own = [str(segment.gateway) for segment in self._fabric.segments if segment.named]
        return port.held(protocol, address, number, own=own)

    # -- the cluster ------------------------------------------------------------------------------

    async def assign(self, networks: Sequence[NetworkAssignment], endpoints: Sequence[Endpoint]) -> None:
        """The cluster's whole wish. What was assigned before and is not here is removed.

        Raises InvalidArgument when a network cannot be; the others are there all the same.
        """
        wish = Wish(tuple(networks), tuple(endpoints))
        async with self._changing:
            if self._settled and wish == self._fabric.wish:
                return
            self._settled = False
            try:
                await self._in_thread(lambda: self._fabric.carry_out(wish))
            finally:
                await self._tell()
            self._settled = True

    async def _tell(self) -> None:
        """Networks or services changed: addresses, ports and names go by them now."""
        endpoints = self._fabric.wish.endpoints
        self._segments = self._fabric.segments
        self._allotments.lay(self._segments, balance.mesh_ports(endpoints))
        await self._directory.replace(self._segments, endpoints)

    # -- networks ---------------------------------------------------------------------------------

    def list(self) -> list[Network]:
        """Those of this host, then the cluster's that this host takes part in."""
        return self._fabric.networks

    def get(self, reference: str) -> Network:
        """By id, name, or the beginning of an id. Raises NotFound."""
        known = {network.meta.id: network for network in self.list()}
        named = {network.spec.name: network for network in reversed(known.values())}
        if reference in known or reference in named:
            return known.get(reference) or named[reference]
        with contextlib.suppress(NotFound):
            return known[ids.resolve(reference, known, kind="network")]
        raise NotFound(f"network {reference} not found")

    async def create(self, spec: NetworkSpec) -> Network:
        """A new bridge network of this host. Raises Conflict for a name or subnet that is taken."""
        async with self._changing:
            network = await self._in_thread(lambda: self._fabric.create(spec))
            await self._tell()
        self._happened("create", network.meta.id, network.spec.name)
        return network

    async def remove(self, reference: str) -> Network:
        """Remove a network of this host; it is returned. Raises Conflict while containers are on it."""
        async with self._changing:
            network = self.get(reference)
            users = self._allotments.users(network.meta.id)
            if users and network.spec.name not in bridge.PREDEFINED:
                raise Conflict(
                    f"error while removing network: network {network.spec.name} id {network.meta.id} "
                    f"has active endpoints: {', '.join(users)}",
                    hint="stop these containers first",
                )
            await self._in_thread(lambda: self._fabric.remove(network))
            await self._tell()
        self._happened("destroy", network.meta.id, network.spec.name)
        return network

    def _happened(self, action: str, network_id: str, name: str, **attributes: str) -> None:
        network = self._fabric.find(network_id)
        known = {"name": name, "type": network.spec.driver if network else "bridge", **attributes}
        self._tell_event(Event(kind=EventKind.NETWORK, action=action, id=network_id, attributes=known))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await _run(self._thread, work)


async def _run(thread: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    """Run `work` in the network's thread, to its end even when the caller is cancelled."""
    running = asyncio.get_running_loop().run_in_executor(thread, _translated, work)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


def _translated(work: Callable[[], T]) -> T:
    """With the kernel's errors as sentences."""
    try:
        return work()
    except OSError as error:
        raise ShoalError(f"network: {error.strerror or error}") from error
