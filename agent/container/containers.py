"""Containers of this host: what the API and the tasks call. References in, containers out; docker's semantics.

A call that changes something is carried to its end even if its caller goes away, so that a lost connection leaves
nothing half done. What it takes is in the siblings: `create`, `lifecycle`, `ending`, `restore`. What only looks at
containers is `survey`; `visits` are attachments and commands, `files` what is copied.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import random
from collections.abc import Callable, Sequence

from agent.container.amendment import Amender
from agent.container.baselayer import base_layer
from agent.container.carriage import Carriage
from agent.container.create import Creator
from agent.container.ending import Ender
from agent.container.execution import Execution
from agent.container.held import Ending, Held
from agent.container.launch import NO_SIZE, Launcher, Size
from agent.container.lifecycle import Lifecycle, Room
from agent.container.listing import listed
from agent.container.plugging import Plugger
from agent.container.prune import disk_bytes, prunable
from agent.container.record import Records
from agent.container.register import Register
from agent.container.restore import restore
from agent.container.runtimes import Runtimes
from agent.container.settle import config_of
from agent.container.survey import Survey
from agent.container.visits import Visits
from agent.image import change
from agent.image.images import Commit, Images
from agent.kernel.syncs import Syncs
from agent.network.networks import Networks
from agent.runtime.runtime import Runtime
from agent.volume.volumes import Volumes
from shoal.clock import Clock, SystemClock
from shoal.errors import Conflict, NotFound, ShoalError
from shoal.model.base import Resources
from shoal.model.container import Container, RestartPolicy, Tuning
from shoal.model.event import Tell, to_nobody
from shoal.model.health import HealthState
from shoal.model.network import NetworkAttachment
from shoal.settings import Paths
from shoal.tasks import Group, Lasting

log = logging.getLogger(__name__)

NO_RESOURCES = Resources()
NO_TUNING = Tuning()


class WaitCondition(enum.Enum):
    NOT_RUNNING = "not-running"
    NEXT_EXIT = "next-exit"
    REMOVED = "removed"


class Containers:
    """Made by `open`; `close` lets go of everything and leaves the containers running."""

    def __init__(self, room: Room, *, images: Images, networks: Networks, base_layer: str) -> None:
        self._room = room
        self._images = images
        self._launcher = Launcher(
            records=room.records,
            runtime=room.runtime,
            images=images,
            networks=networks,
            volumes=room.volumes,
            base_layer=base_layer,
            runtimes=room.runtimes,
            find=room.register.find,
        )
        self._execution = Execution(room.runtime, self._launcher)
        self._lifecycle = Lifecycle(room, self._launcher, self._execution)
        self._ender = Ender(room, self._lifecycle)
        self._amender = Amender(room, self._lifecycle, networks)
        self._plugger = Plugger(room, self._lifecycle, self._launcher, self._amender, networks)
        self._carriage = Carriage(room, self._launcher)
        self._creator = Creator(room, images, self._lifecycle)
        self._survey = Survey(room, self._launcher, images, networks)
        self._visits = Visits(room, self._lifecycle, self._execution)

    @classmethod
    async def open(
        cls,
        *,
        paths: Paths,
        runtime: Runtime,
        images: Images,
        networks: Networks,
        volumes: Volumes,
        clock: Clock | None = None,
        chance: Callable[[], float] = random.random,
        tell: Tell = to_nobody,
        runtimes: Runtimes = Runtimes(),  # noqa: B008 - frozen
    ) -> Containers:
        """Adopts what runs, settles what ended meanwhile, revives by policy, sweeps what is nobody's.

        Call and `close` it in one task: what goes wrong with the group of its tasks is raised there.
        """
        records = Records(paths.containers)
        await asyncio.to_thread(records.open)
        room = Room(
            records=records,
            syncs=Syncs(),
            register=Register(),
            runtime=runtime,
            volumes=volumes,
            clock=clock or SystemClock(),
            chance=chance,
            group=await Group().__aenter__(),
            lasting=Lasting(),
            tell=tell,
            runtimes=runtimes,
        )
        base = await asyncio.to_thread(base_layer, paths.containers)
        containers = cls(room, images=images, networks=networks, base_layer=base)
        await restore(room, containers._lifecycle, containers._amender, networks, boot_id=containers._launcher.boot_id)
        for held in room.register:
            if held.state.returning and held.alive:  # the agent died in the middle of `restart`
                room.group.spawn("restart", containers._restart_again(held))
        return containers

    async def close(self) -> None:
        await self._room.lasting.close()
        for held in self._room.register:
            held.unwatch()
        try:
            await self._room.group.__aexit__(None, None, None)
        finally:
            self._room.syncs.close()

    @property
    def files(self) -> Carriage:
        """Files in and out of them."""
        return self._carriage

    @property
    def survey(self) -> Survey:
        """What they take, use and have written."""
        return self._survey

    @property
    def visits(self) -> Visits:
        """Who attaches to them or runs something in them."""
        return self._visits

    def get(self, ref: str) -> Container:
        """Raises NotFound ("No such container: x")."""
        return self._room.register.find(ref).container

    def find(self, name: str) -> Container | None:
        """The container of exactly this name."""
        held = self._room.register.named(name)
        return held.container if held else None

    async def list(
        self, *, all: bool = False, last: int = 0, filters: Sequence[tuple[str, str]] = ()
    ) -> list[Container]:
        """Newest first. `last` counts containers in any state, as `filters` on a state do."""
        return await listed(self._room.register, self._images, all=all, last=last, filters=filters)

    async def create(self, wanted: Container, *, publish_all: bool = False, platform: str = "") -> Container:
        """A container that can be started. An empty name is made up; with `platform`, its image must be for that one.

        Raises NotFound for its image, Conflict for its name, InvalidArgument for what can never run.
        """
        return await self._room.lasting.do(self._creator.create(wanted, publish_all=publish_all, platform=platform))

    async def start(self, ref: str, *, size: Size = NO_SIZE) -> Container:
        """One that runs is left alone. Raises StartFailed, CommandNotFound, CommandNotExecutable…"""
        held = self._room.register.find(ref)
        await self._room.lasting.do(self._start(held, size))
        return held.container

    async def stop(self, ref: str, *, timeout_s: int | None = None, signal: str = "") -> Container:
        """Returns when it has ended. One that does not run is left alone."""
        held = self._room.register.find(ref)
        await self._room.lasting.do(self._ender.stop(held, timeout_s=timeout_s, signal=signal))
        return held.container

    async def restart(self, ref: str, *, timeout_s: int | None = None, signal: str = "") -> Container:
        """End it as `stop` does, and start it again. It stays, even if it is one that goes when it ends."""
        held = self._room.register.find(ref)
        await self._room.lasting.do(self._ender.restart(held, timeout_s=timeout_s, signal=signal))
        return held.container

    async def kill(self, ref: str, signal: str = "") -> None:
        await self._room.lasting.do(self._ender.kill(self._room.register.find(ref), signal))

    async def pause(self, ref: str) -> None:
        await self._room.lasting.do(self._ender.pause(self._room.register.find(ref)))

    async def resume(self, ref: str) -> None:
        await self._room.lasting.do(self._ender.resume(self._room.register.find(ref)))

    async def rename(self, ref: str, name: str) -> None:
        """Raises Conflict for a name that is taken. Others find it by the new name at once."""
        await self._room.lasting.do(self._amender.rename(self._room.register.find(ref), name))

    async def update(
        self,
        ref: str,
        *,
        limits: Resources = NO_RESOURCES,
        tuning: Tuning = NO_TUNING,
        restart: RestartPolicy | None = None,
    ) -> Container:
        """Zeros and None leave things as they are. Raises Conflict for what the kernel refuses."""
        held = self._room.register.find(ref)
        await self._room.lasting.do(self._amender.update(held, limits=limits, tuning=tuning, restart=restart))
        return held.container

    async def connect(self, ref: str, attachment: NetworkAttachment) -> None:
        """One more network. Raises NotFound, and Conflict for one that it has or cannot have."""
        await self._room.lasting.do(self._plugger.connect(self._room.register.find(ref), attachment))

    async def disconnect(self, ref: str, network: str) -> None:
        """One network less. Raises NotFound, and Conflict for one that it does not have."""
        await self._room.lasting.do(self._plugger.disconnect(self._room.register.find(ref), network))

    async def prune(self, filters: Sequence[tuple[str, str]] = ()) -> tuple[Sequence[str], int]:
        """Remove what does not run: the ids, and the bytes that this frees. What is started meanwhile stays."""
        doomed = prunable((each.container for each in self._room.register if not each.busy), filters)
        removed, freed = [], 0
        for each in doomed:
            size_bytes = await asyncio.to_thread(disk_bytes, self._room.records.folder(each.meta.id))
            try:
                await self.remove(each.meta.id)
            except (Conflict, NotFound):
                continue
            removed.append(each.meta.id)
            freed += size_bytes
        return removed, freed

    async def remove(self, ref: str, *, force: bool = False, volumes: bool = False) -> None:
        """`volumes`: its anonymous ones that nobody else uses, too."""
        held = self._room.register.find(ref)
        await self._room.lasting.do(self._ender.remove(held, force=force, volumes=volumes))

    async def wait(self, ref: str, condition: WaitCondition = WaitCondition.NOT_RUNNING) -> Ending:
        """NOT_RUNNING: at once if it does not run; NEXT_EXIT: the next one, even of a container not yet started."""
        held = self._room.register.find(ref)
        if condition == WaitCondition.REMOVED:
            return await held.removal()
        if condition == WaitCondition.NEXT_EXIT:
            return await held.next_exit()
        while held.busy and not held.gone:
            await held.next_exit()
        return held.ending

    async def wait_change(self, ref: str, health: HealthState) -> None:
        """Return once it does not run, or its health is another than `health`."""
        held = self._room.register.find(ref)
        while held.busy and not held.gone and held.state.status.health.state == health:
            await held.health_news()

    async def commit(
        self,
        ref: str,
        *,
        reference: str = "",
        author: str = "",
        message: str = "",
        changes: Sequence[str] = (),
        pause: bool = True,
    ) -> str:
        """An image of what it is now; its id. With `pause` its processes stand still meanwhile."""
        held = self._room.register.find(ref)
        image = await self._images.get(held.record.container.image_id)
        commit = Commit(
            config=change.apply(config_of(held.record.container, image.config), changes),
            author=author,
            comment=message,
            command=" ".join(held.record.container.argv),
        )
        async with contextlib.AsyncExitStack() as stack:
            if pause:
                await stack.enter_async_context(self._ender.still(held))
            made = await self._images.commit(self._carriage.layer(held.id), image.meta.id, commit, reference=reference)
        self._lifecycle.publish(held, "commit", imageID=made, imageRef=reference)
        return made

    def volume_users(self, name: str) -> Sequence[str]:
        """Ids of the containers that mount this volume."""
        return self._room.register.volume_users(name)

    def image_users(self, image_id: str) -> Sequence[tuple[str, str, bool]]:
        """(id, name, running) of the containers made from this image."""
        return self._room.register.image_users(image_id)

    async def _start(self, held: Held, size: Size) -> None:
        async with held.lock:
            await self._lifecycle.start(held, size)

    async def _restart_again(self, held: Held) -> None:
        try:
            await self._ender.restart(held)
        except ShoalError as error:
            log.warning("container %s does not start again: %s", held.name, error)
