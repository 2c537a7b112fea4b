"""VolumeService: volumes of this host over RPC."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc.aio

from agent.container.containers import Containers
from agent.container.filter import has_label
from agent.container.prune import disk_bytes
from agent.volume.volumes import Volumes
from shoal import codec
from shoal.errors import Conflict, InvalidArgument, NotFound
from shoal.model.volume import Volume
from shoal.v1 import engine_pb2 as wire
from shoal.v1 import types_pb2
from shoal.v1.engine_pb2_grpc import VolumeServiceServicer

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

_FILTERS = ("dangling", "driver", "label", "name")


class VolumeService(VolumeServiceServicer):
    def __init__(self, volumes: Volumes, containers: Containers) -> None:
        self._volumes = volumes
        self._containers = containers

    async def CreateVolume(self, request: wire.CreateVolumeRequest, _context: Context) -> wire.CreateVolumeResponse:
        volume = await self._volumes.create(request.name, request.labels, options=request.options)
        return wire.CreateVolumeResponse(volume=codec.to_wire(volume, types_pb2.Volume))

    async def ListVolumes(self, request: wire.ListVolumesRequest, _context: Context) -> wire.ListVolumesResponse:
        wanted: dict[str, list[str]] = {}
        for each in request.filters:
            _check(each.key, each.value)
            wanted.setdefault(each.key, []).append(each.value)
        found = [volume for volume in self._volumes.list() if self._matches(volume, wanted)]
        return wire.ListVolumesResponse(volumes=[codec.to_wire(each, types_pb2.Volume) for each in found])

    async def GetVolume(self, request: wire.GetVolumeRequest, _context: Context) -> wire.GetVolumeResponse:
        volume = self._volumes.get(request.name)
        return wire.GetVolumeResponse(volume=codec.to_wire(volume, types_pb2.Volume))

    async def RemoveVolume(self, request: wire.RemoveVolumeRequest, _context: Context) -> wire.RemoveVolumeResponse:
        users = self._containers.volume_users(request.name)
        await self._volumes.remove(request.name, users, force=request.force)
        return wire.RemoveVolumeResponse()

    async def PruneVolumes(self, request: wire.PruneVolumesRequest, _context: Context) -> wire.PruneVolumesResponse:
        for each in request.filters:
            if each.key not in ("label", "label!"):
                raise InvalidArgument(f"invalid filter '{each.key}'", hint="there are: label, label!")
        removed, freed = [], 0
        for volume in self._volumes.list():
            if not (request.all or volume.anonymous) or self._containers.volume_users(volume.name):
                continue
            if any(has_label(volume.labels, each.value) != (each.key == "label") for each in request.filters):
                continue
            size_bytes = await asyncio.to_thread(disk_bytes, Path(volume.mountpoint))
            try:
                await self._volumes.remove(volume.name, self._containers.volume_users(volume.name))
            except (Conflict, NotFound):  # somebody took it, or was faster
                continue
            removed.append(volume.name)
            freed += size_bytes
        return wire.PruneVolumesResponse(volumes=removed, reclaimed_bytes=freed)

    def _matches(self, volume: Volume, wanted: dict[str, list[str]]) -> bool:
        """Values of one key are alternatives, except labels; keys add up."""
        tests: dict[str, Callable[[str], bool]] = {
            "dangling": lambda value: (not self._containers.volume_users(volume.name)) == (value in ("true", "1")),
            "driver": lambda value: volume.driver == value,
            "label": lambda value: has_label(volume.labels, value),
            "name": lambda value: value in volume.name,
        }
        return all(
            (all if key == "label" else any)(tests[key](value) for value in values) for key, values in wanted.items()
        )


def _check(key: str, value: str) -> None:
    if key not in _FILTERS:
        raise InvalidArgument(f"invalid filter '{key}'", hint=f"there are: {', '.join(_FILTERS)}")
    if key == "dangling" and value not in ("true", "false", "1", "0"):
        raise InvalidArgument(f"invalid value '{value}' for filter 'dangling'", hint="true or false")
