"""What takes this host's disk, as `system df` asks: images, containers, volumes, and what builds keep."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from agent.build.builder import Builder
from agent.container.containers import Containers
from agent.container.prune import file_bytes
from agent.image.images import Images
from agent.volume.volumes import Volumes
from shoal import codec
from shoal.errors import NotFound
from shoal.model.container import Container
from shoal.v1 import engine_pb2 as wire
from shoal.v1 import types_pb2


class Usage:
    def __init__(self, images: Images, containers: Containers, volumes: Volumes, builder: Builder) -> None:
        self._images = images
        self._containers = containers
        self._volumes = volumes
        self._builder = builder

    async def measured(self) -> wire.GetDiskUsageResponse:
        """A walk through all that containers wrote and volumes hold."""
        containers = await self._containers.list(all=True)
        images, layer_bytes = self._images.usage()
        having = Counter(each.image_id for each in containers)
        return wire.GetDiskUsageResponse(
            images=[
                wire.ImageUsage(
                    image=codec.to_wire(each.image, types_pb2.Image),
                    shared_bytes=each.shared_bytes,
                    containers=having[each.image.meta.id],
                )
                for each in images
            ],
            layer_bytes=layer_bytes,
            containers=await self._of_containers(containers),
            volumes=await self._of_volumes(),
            builds=[codec.to_wire(each, wire.BuildUsage) for each in await self._builder.usage()],
        )

    async def _of_containers(self, containers: Sequence[Container]) -> list[wire.ContainerUsage]:
        found = []
        untagged = set(self._containers.survey.untagged(containers))
        for each in containers:
            try:
                taken = await self._containers.survey.size(each.meta.id)
            except NotFound:  # it went meanwhile
                continue
            container = codec.to_wire(each, types_pb2.Container)
            usage = wire.ContainerUsage(
                container=container, own_bytes=taken.own_bytes, untagged=each.meta.id in untagged
            )
            found.append(usage)
        return found

    async def _of_volumes(self) -> list[wire.VolumeUsage]:
        return [
            wire.VolumeUsage(
                volume=codec.to_wire(each, types_pb2.Volume),
                users=len(self._containers.volume_users(each.name)),
                size_bytes=await asyncio.to_thread(file_bytes, Path(each.mountpoint)),
            )
            for each in self._volumes.list()
        ]
