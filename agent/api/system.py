"""SystemService: versions and state of this host, as `shoal info` and `shoal version` show them."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import grpc.aio
import msgspec

from agent import capacity, describe
from agent.container.runtimes import Runtimes
from agent.registry.rules import Rules
from agent.standing import Said, Standing, State
from shoal import __version__, codec
from shoal.errors import Locked
from shoal.files import read_optional
from shoal.model.container import Container, ContainerState
from shoal.model.event import Event
from shoal.model.image import Image
from shoal.settings import Paths
from shoal.v1 import engine_pb2 as wire
from shoal.v1 import types_pb2
from shoal.v1.engine_pb2_grpc import SystemServiceServicer

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

STORAGE_DRIVER = "overlay2"
_RUNNING = frozenset({ContainerState.RUNNING, ContainerState.PAUSED, ContainerState.RESTARTING})


class ContainerRoom(Protocol):
    async def list(self, *, all: bool = False) -> list[Container]: ...


class ImageRoom(Protocol):
    async def list(self) -> Sequence[Image]: ...


class MembershipRoom(Protocol):
    def standing(self) -> Standing: ...
    async def manager_says(self) -> Said: ...


class Events(Protocol):
    def follow(
        self, *, since_ns: int, until_ns: int, filters: Sequence[tuple[str, str]]
    ) -> AsyncIterator[Sequence[Event]]: ...


class DiskUsage(Protocol):
    async def measured(self) -> wire.GetDiskUsageResponse: ...


class System(msgspec.Struct, frozen=True):
    """What the service asks."""

    paths: Paths
    containers: ContainerRoom
    images: ImageRoom
    membership: MembershipRoom
    events: Events
    usage: DiskUsage
    runtimes: Runtimes = Runtimes()
    rules: Rules = Rules()


class SystemService(SystemServiceServicer):
    def __init__(self, system: System) -> None:
        self._system = system

    async def GetInfo(self, _request: wire.GetInfoRequest, _context: Context) -> wire.GetInfoResponse:
        host = describe.describe("")
        containers = await self._system.containers.list(all=True)
        disk = os.statvfs(self._system.paths.data)
        membership, said, locked = self._system.membership, Said(), False
        try:
            said = await membership.manager_says()
        except Locked:
            locked = True
        # Only now: an agent that has just started did not know before whether this host is a member.
        standing = membership.standing()
        if locked:
            standing = msgspec.structs.replace(standing, state=State.LOCKED, error="")
        return wire.GetInfoResponse(
            version=__version__,
            hostname=host.hostname,
            kernel=host.kernel,
            os=describe.os_name(),
            architecture=host.architecture,
            cgroup_version=cgroup_version(),
            storage_driver=STORAGE_DRIVER,
            cpus=capacity.cpus(),
            memory_bytes=capacity.memory_bytes(),
            containers=len(containers),
            running=sum(each.status.state in _RUNNING for each in containers),
            paused=sum(each.status.state == ContainerState.PAUSED for each in containers),
            images=len(await self._system.images.list()),
            now_ns=time.time_ns(),
            disk_bytes=disk.f_blocks * disk.f_frsize,
            disk_free_bytes=disk.f_bavail * disk.f_frsize,
            machine_id=(read_optional(Path("/etc/machine-id")) or b"").decode(errors="replace").strip(),
            data_dir=str(self._system.paths.data),
            swarm=_swarm(standing),
            manager_version=said.version,
            warnings=said.warnings,
            runtimes=sorted(self._system.runtimes.programs),
            default_runtime=self._system.runtimes.default,
            insecure_registries=self._system.rules.plain,
            registry_mirrors=self._system.rules.written_mirrors,
        )

    async def GetDiskUsage(self, _request: wire.GetDiskUsageRequest, _context: Context) -> wire.GetDiskUsageResponse:
        return await self._system.usage.measured()

    async def WatchEvents(
        self, request: wire.WatchEventsRequest, _context: Context
    ) -> AsyncIterator[wire.WatchEventsResponse]:
        filters = [(each.key, each.value) for each in request.filters]
        async for batch in self._system.events.follow(
            since_ns=request.since_ns, until_ns=request.until_ns, filters=filters
        ):
            yield wire.WatchEventsResponse(events=[codec.to_wire(each, types_pb2.Event) for each in batch])


def cgroup_version(root: Path = Path("/sys/fs/cgroup")) -> int:
    """2 where the unified hierarchy has the controllers, else 1 (cgroups(7))."""
    return 2 if (root / "cgroup.controllers").exists() else 1


def _swarm(standing: Standing) -> wire.SwarmState:
    if standing.state is State.INACTIVE:
        return wire.SwarmState(state=standing.state.value)
    return wire.SwarmState(
        state=standing.state.value,
        node_id=standing.node_id,
        cluster_id=standing.cluster_id,
        role=types_pb2.Role.Value(f"ROLE_{standing.role.name}"),
        error=standing.error,
        managers=standing.managers,
        address=standing.address,
    )
