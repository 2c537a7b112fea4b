"""Sweep: removes what a cluster left on a host that is no member (any more): task containers and networks."""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from typing import Protocol

from agent.mesh import NetworkRoom
from agent.taskrun import ContainerRoom
from shoal.errors import ShoalError

log = logging.getLogger(__name__)


class Swept(Protocol):
    @property
    def containers(self) -> ContainerRoom: ...
    @property
    def networks(self) -> NetworkRoom: ...


async def sweep(rooms: Swept) -> None:
    """Idempotent. What cannot be removed is said in the log and left to the next start."""
    for container in await rooms.containers.list(all=True):
        if container.task_id:
            await _tried("container", container.name, rooms.containers.remove(container.meta.id, force=True))
    await _tried("networks", "of the swarm", rooms.networks.assign((), ()))


async def _tried(kind: str, name: str, removal: Awaitable[object]) -> None:
    try:
        await removal
    except ShoalError as error:
        log.warning("%s %s cannot be removed: %s", kind, name, error)
