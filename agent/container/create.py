"""Create: from a wish to a container that can be started. What is wrong with it leaves nothing behind.

The order survives a crash at any line: the name is taken in memory, the record is saved (as `pending` while there
are volumes to make), then the volumes, then the record again. `restore` removes what is still pending.
"""

from __future__ import annotations

import asyncio
import contextlib
import os

import msgspec

from agent.container import host, journal, place
from agent.container.held import Held
from agent.container.idrange import free_range
from agent.container.isolation import AUTO, JOURNAL_LOG
from agent.container.lifecycle import Lifecycle, Room
from agent.container.record import Record, State
from agent.container.settle import CONTAINER_MODE, settled
from agent.image import platform as platforms
from agent.image.images import Images
from agent.image.platform import Platform
from shoal import ids
from shoal.errors import InvalidArgument, NotFound
from shoal.model.base import Meta
from shoal.model.container import Container, ContainerSpec, ContainerStatus, Mount, MountType
from shoal.model.image import Image
from shoal.model.network import NetworkAttachment
from shoal.names import check_name, link_parts, random_name


class Creator:
    def __init__(self, room: Room, images: Images, lifecycle: Lifecycle) -> None:
        self._room = room
        self._images = images
        self._lifecycle = lifecycle
        self._cpus = os.cpu_count() or 1
        self._claimed: set[int] = set()  # ranges of ids of containers that are being made

    async def create(self, wanted: Container, *, publish_all: bool, platform: str) -> Container:
        image = await self._images.get(wanted.spec.image)
        if platform:
            _check_platform(image, wanted.spec.image, platforms.parse(platform))
        register = self._room.register
        container_id = ids.new_local_id()
        name = wanted.name.removeprefix("/") or random_name(register.names, self._room.chance)
        check_name(name, "container")
        first_id = self._first_id(wanted.spec.userns_mode)
        try:
            register.reserve(name, container_id)
            minted: set[str] = set()
            container = settled(
                msgspec.structs.replace(self._identified(wanted, container_id, name), first_id=first_id),
                image.meta.id,
                image.config,
                cpus=self._cpus,
                publish_all=publish_all,
                mint=lambda: _mint(minted),
                inherited=[each for word in wanted.spec.volumes_from for each in self._inherited(word)],
            )
            host.check_realtime(container.tuning)
            place.check_binds(container.mounts)
            if container.spec.log.driver == JOURNAL_LOG:
                journal.check_options(container.spec.log)
                journal.check_host()
            held = await self._make(container, image, frozenset(minted))
        except BaseException:
            register.release(name, container_id)
            raise
        finally:
            self._claimed.discard(first_id)
        register.add(held)
        self._lifecycle.publish(held, "create")
        return held.container

    def _identified(self, wanted: Container, container_id: str, name: str) -> Container:
        now = self._room.clock.now_ns()
        folder = self._room.records.folder(container_id)
        return msgspec.structs.replace(
            wanted,
            meta=Meta(id=container_id, created_at_ns=now, updated_at_ns=now),
            name=name,
            spec=self._resolved_modes(
                msgspec.structs.replace(wanted.spec, runtime=self._room.runtimes.chosen(wanted.spec.runtime))
            ),
            networks=tuple(self._resolved(each) for each in wanted.networks),
            links=tuple(self._linked(each) for each in wanted.spec.links),
            log_path=f"{folder}/{container_id}-json.log",
            status=ContainerStatus(),
        )

    def _first_id(self, mode: str) -> int:
        """Of a range of ids that no other container has, claimed until its record stands; 0 where none is wanted."""
        if mode != AUTO:
            return 0
        claimed = free_range(self._claimed | {held.record.container.first_id for held in self._room.register})
        self._claimed.add(claimed)
        return claimed

    def _linked(self, text: str) -> str:
        name, alias = link_parts(text)
        try:
            return f"{self._room.register.find(name).id}:{alias}"
        except NotFound as error:
            raise NotFound(f"could not get container for {name}: {error.message}") from error

    def _inherited(self, word: str) -> list[Mount]:
        """What another container mounts, "NAME" or "NAME:ro", running or not. Raises NotFound."""
        name, _, mode = word.partition(":")
        if mode not in ("", "ro", "rw", "z"):
            raise InvalidArgument(f"invalid mode for volumes-from: {mode}", hint="ro or rw")
        return [
            # It was filled from its own image, if at all.
            msgspec.structs.replace(each, read_only=each.read_only or mode == "ro", no_copy=True)
            for each in self._room.register.find(name).record.container.mounts
            if each.type != MountType.TMPFS
        ]

    def _resolved_modes(self, spec: ContainerSpec) -> ContainerSpec:
        """Those of another container by its id, so that they outlive a renaming. Raises NotFound."""
        return msgspec.structs.replace(spec, pid_mode=self._by_id(spec.pid_mode), ipc_mode=self._by_id(spec.ipc_mode))

    def _by_id(self, mode: str) -> str:
        if not mode.startswith(CONTAINER_MODE):
            return mode
        return CONTAINER_MODE + self._room.register.find(mode.removeprefix(CONTAINER_MODE)).id

    def _resolved(self, attachment: NetworkAttachment) -> NetworkAttachment:
        return msgspec.structs.replace(attachment, network=self._by_id(attachment.network))

    async def _make(self, container: Container, image: Image, anonymous: frozenset[str]) -> Held:
        records = self._room.records
        container_id = container.meta.id
        volumes = any(each.type == MountType.VOLUME for each in container.mounts)
        record = Record(
            container=container,
            pending=volumes,
            stop_signal=container.spec.stop_signal or image.config.stop_signal,
        )
        durable = record.durable
        try:
            records.make(container_id)
            await self._begin(record)
            if volumes:
                await self._fill(container, anonymous, durable)
                record = msgspec.structs.replace(record, pending=False)
                await self._save(record)
        except BaseException:
            await self._undo(container_id, anonymous)
            raise
        held = Held(record, State())
        held.cleared = True
        return held

    async def _begin(self, record: Record) -> None:
        if record.durable:
            with self._room.records.begin(record) as descriptors:
                await self._room.syncs.sync(*descriptors)
        else:
            self._room.records.save(record, durable=False)

    async def _save(self, record: Record) -> None:
        if record.durable:
            await asyncio.to_thread(self._room.records.save, record, durable=True)
        else:
            self._room.records.save(record, durable=False)

    async def _fill(self, container: Container, anonymous: frozenset[str], durable: bool) -> None:
        await place.prepare(
            container.mounts,
            self._room.volumes,
            layers=self._images.layers(container.image_id),
            anonymous=anonymous,
            durable=durable,
        )

    async def _undo(self, container_id: str, anonymous: frozenset[str]) -> None:
        for name in anonymous:
            with contextlib.suppress(NotFound, OSError):
                await self._room.volumes.remove(name)
        self._room.records.discard(container_id)
        await asyncio.to_thread(self._room.records.empty_trash)


def _check_platform(image: Image, reference: str, wanted: Platform) -> None:
    """Raises NotFound in docker's words."""
    actual = Platform(image.os, image.architecture)
    if not wanted.accepts(actual):
        raise NotFound(
            f"image with reference {reference} was found but does not match the specified platform: "
            f"wanted {wanted}, actual: {actual}"
        )


def _mint(minted: set[str]) -> str:
    """A name for an anonymous volume."""
    name = os.urandom(32).hex()
    minted.add(name)
    return name
