"""Plugging: a container that is there gets one more network, or leaves one.

The record is saved first; what runs is changed then, its hosts and resolv.conf too. A crash in between leaves a
container whose networks are those of its record from its next start on.
"""

from __future__ import annotations

import msgspec

from agent.container import link
from agent.container.amendment import Amender
from agent.container.held import Held
from agent.container.hostfiles import write_host_files
from agent.container.launch import Launcher, hostname_of
from agent.container.lifecycle import Lifecycle, Room
from agent.container.settle import CONTAINER_MODE, HOST, NONE, check_links
from agent.network.connection import Connection
from agent.network.networks import Networks
from shoal.errors import Conflict, ShoalError
from shoal.model.container import Container
from shoal.model.network import NetworkAttachment

_ALONE = (NetworkAttachment(network=NONE),)


class Plugger:
    def __init__(
        self, room: Room, lifecycle: Lifecycle, launcher: Launcher, amender: Amender, networks: Networks
    ) -> None:
        self._room = room
        self._lifecycle = lifecycle
        self._launcher = launcher
        self._amender = amender
        self._networks = networks

    async def connect(self, held: Held, attachment: NetworkAttachment) -> None:
        """Raises NotFound for a network, Conflict for one that it has or cannot have, and what `Networks.join` does;
        then nothing has changed."""
        network = self._networks.get(attachment.network)
        if network.spec.name in (HOST, NONE):
            raise Conflict(f"container cannot be connected to network {network.spec.name}", hint="make a new container")
        async with held.lock:
            held.check_there()
            before = held.record.container
            _check_own_network(before)
            if network.meta.id in self._ids(before):
                raise Conflict(f"endpoint with name {held.name} already exists in network {network.spec.name}")
            attachment = msgspec.structs.replace(attachment, network=network.spec.name)
            check_links(attachment)
            others = tuple(each for each in before.networks if each.network != NONE)
            await self._amender.save(held, msgspec.structs.replace(before, networks=(*others, attachment)))
            if held.alive:
                try:
                    connection = await self._networks.join(
                        held.id,
                        attachment,
                        name=held.name,
                        hostname=hostname_of(before),
                        netns_path=_namespace(held),
                    )
                except ShoalError:
                    await self._amender.save(held, before)
                    raise
                await self._tell(held, connection)

    async def disconnect(self, held: Held, reference: str) -> None:
        """Raises NotFound for a network, Conflict where it is not on that one."""
        network = self._networks.get(reference)
        async with held.lock:
            held.check_there()
            before = held.record.container
            _check_own_network(before)
            ids = self._ids(before)
            if network.meta.id not in ids:
                raise Conflict(f"container {held.id} is not connected to network {network.spec.name}")
            rest = tuple(each for each, id in zip(before.networks, ids, strict=True) if id != network.meta.id)
            await self._amender.save(held, msgspec.structs.replace(before, networks=rest or _ALONE))
            if held.alive:
                connection = await self._networks.leave(
                    held.id, network.meta.id, hostname=hostname_of(before), netns_path=_namespace(held)
                )
                await self._tell(held, connection)

    def _ids(self, container: Container) -> list[str]:
        return [self._networks.get(each.network).meta.id for each in container.networks]

    async def _tell(self, held: Held, connection: Connection) -> None:
        """What it has now, in its status and in the files that its resolver reads."""
        await self._lifecycle.change(held, addresses=connection.addresses, ports=connection.ports)
        container = held.record.container
        lines = [link.hosts_line(each) for each in await self._launcher.links(container)]
        write_host_files(self._room.records.folder(held.id), container, hostname_of(container), connection, lines)


def _namespace(held: Held) -> str:
    return f"/proc/{held.state.status.pid}/ns/net"


def _check_own_network(container: Container) -> None:
    """Raises Conflict."""
    network = container.networks[0].network
    if network == HOST or network.startswith(CONTAINER_MODE):
        raise Conflict(
            "container sharing network namespace with another container or host "
            "cannot be connected to any other network"
        )
