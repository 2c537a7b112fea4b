"""Survey: what containers take, use, have written and say. It looks, and changes nothing."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Iterable, Sequence

import msgspec

from agent.container import top
from agent.container.difference import Change, difference
from agent.container.launch import Launcher
from agent.container.layout import Layout, layout
from agent.container.lifecycle import Room
from agent.container.logged import logged
from agent.container.logs import LogLine, Window
from agent.container.prune import file_bytes
from agent.container.stats import Stats, sample
from agent.image.images import Images
from agent.image.platform import Platform, host
from agent.network.networks import Networks
from shoal.errors import Conflict, NotFound
from shoal.model.container import Container

STATS_EVERY_S = 1.0


class Taken(msgspec.Struct, frozen=True):
    """Of the disk: what the files of a container's own layer take, and those of its image with them."""

    own_bytes: int
    whole_bytes: int


class Survey:
    def __init__(self, room: Room, launcher: Launcher, images: Images, networks: Networks) -> None:
        self._room = room
        self._launcher = launcher
        self._images = images
        self._networks = networks

    async def size(self, ref: str) -> Taken:
        """What it takes of the disk: a walk through all that it wrote."""
        held = self._room.register.find(ref)
        own = await asyncio.to_thread(file_bytes, self._room.records.folder(held.id) / "upper")
        image = 0
        with contextlib.suppress(NotFound):  # its image may be untagged and gone, while its layers stay
            image = (await self._images.get(held.record.container.image_id)).size_bytes
        return Taken(own_bytes=own, whole_bytes=own + image)

    def untagged(self, containers: Iterable[Container]) -> list[str]:
        """Ids of those whose image has no longer the name that they were made by."""
        means = functools.cache(self._images.means)
        return [each.meta.id for each in containers if not means(each.spec.image, each.image_id)]

    async def foreign(self, container: Container) -> tuple[str, ...]:
        """That its image is for other machines than this one, in docker's words."""
        image = await self._images.get(container.image_id)
        theirs, here = Platform(image.os, image.architecture), host()
        if here.runs(theirs):
            return ()
        return (
            f"The requested image's platform ({theirs}) does not match the detected host platform ({here}) "
            "and no specific platform was requested",
        )

    def layout(self, ref: str) -> Layout:
        """Where it is on this host."""
        held = self._room.register.find(ref)
        container = held.record.container
        layers: tuple[str, ...] = ()
        network_ids: dict[str, str] = {}
        with contextlib.suppress(NotFound):  # as above
            layers = self._launcher.layers(container)
        for each in container.networks:
            with contextlib.suppress(NotFound):  # it is another container's, or gone
                network_ids[each.network] = self._networks.get(each.network).meta.id
        return layout(
            held,
            layers,
            folder=self._room.records.folder,
            find=self._room.register.find,
            thermal=self._launcher.thermal,
            network_ids=network_ids,
        )

    async def difference(self, ref: str) -> Sequence[Change]:
        """What its own layer changes of its image, by path."""
        held = self._room.register.find(ref)
        upper = str(self._room.records.folder(held.id) / "upper")
        return await asyncio.to_thread(difference, upper, self._launcher.layers(held.record.container))

    async def processes(self, ref: str, arguments: Sequence[str] = ()) -> top.Processes:
        """What the host's ps(1) says of its processes. Raises Conflict if it does not run."""
        held = self._room.register.find(ref)
        if not held.alive:
            raise Conflict(f"container {held.id} is not running", hint=f"run shoal start {held.name}")
        return await top.processes(await self._room.runtime.pids(held.id), arguments)

    async def stats(self, refs: Sequence[str] = (), *, all: bool = False) -> AsyncIterator[Sequence[Stats]]:
        """What these containers use, once a second, without end; with no `refs` those that run (or `all`) then.

        Raises NotFound for a container that is not there at the start; one that goes later is left out.
        """
        named = [self._room.register.find(ref) for ref in refs]
        while True:
            held = named or [each for each in self._room.register if all or each.alive]
            yield [
                await sample(each, self._room.runtime, self._room.clock)
                for each in sorted(held, key=lambda each: (-each.record.container.meta.created_at_ns, each.id))
                if not each.gone
            ]
            await self._room.clock.sleep(STATS_EVERY_S)

    async def logs(
        self, ref: str, *, follow: bool = False, tail: int | None = None, since_ns: int = 0, until_ns: int = 0
    ) -> AsyncIterator[Sequence[LogLine]]:
        """What it wrote, oldest first, in batches; with `follow` until it ends."""
        held = self._room.register.find(ref)
        window = Window(tail=tail, since_ns=since_ns, until_ns=until_ns)
        async for batch in logged(held, window, clock=self._room.clock, follow=follow):
            yield batch
