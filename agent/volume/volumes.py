"""Volumes of this host: named and anonymous places for data that outlives containers.

Who uses a volume only `agent.container` knows, so it is told to `remove`. A volume is first filled from an image
in two steps, so that a crash never leaves half of it: `fill` has the content copied into a folder beside the
data and then moves it in entry by entry; an interrupted move is finished by the next `open`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from agent.volume.filesystem import check_options, folder_of, mount, mount_of, unmount
from agent.volume.local import Local
from shoal import codec
from shoal.clock import Clock, SystemClock
from shoal.errors import Conflict, InvalidArgument, NotFound, ShoalError, SourceNotFound
from shoal.files import read_optional, sweep_unfinished, write_atomic
from shoal.model.base import Meta
from shoal.model.event import Event, EventKind, Tell, to_nobody
from shoal.model.volume import Volume

log = logging.getLogger(__name__)

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,254}")
_RECORD = "volume"
# What is being copied, and what is copied whole and waits to be moved in.
_COPYING = "copying"
_COPIED = "copied"


class Volumes:
    """Made by `open`, which also repairs what a crash left."""

    def __init__(self, folder: Path, clock: Clock, tell: Tell) -> None:
        self._folder = folder
        self._clock = clock
        self._tell = tell
        self._driver = Local(folder)
        self._volumes: dict[str, Volume] = {}
        # Of those that are mounted: the containers that were given them by this process.
        self._users: dict[str, set[str]] = {}
        # By hash of the name: two that share one only wait for each other.
        self._locks = tuple(asyncio.Lock() for _ in range(64))

    @classmethod
    async def open(cls, folder: Path, *, clock: Clock | None = None, tell: Tell = to_nobody) -> Volumes:
        """The volumes under `folder` (`Paths.volumes`), made if it is not there."""
        volumes = cls(folder, clock or SystemClock(), tell)
        await asyncio.to_thread(volumes._load)
        return volumes

    def get(self, name: str) -> Volume:
        """Raises NotFound."""
        try:
            return self._volumes[name]
        except KeyError:
            raise NotFound(f"get {name}: no such volume") from None

    def list(self) -> list[Volume]:
        """By name."""
        return [self._volumes[name] for name in sorted(self._volumes)]

    def path(self, name: str) -> Path:
        """Where the data is. Raises NotFound, and SourceNotFound when the host's folder in its place is gone."""
        volume = self.get(name)
        folder = folder_of(volume.options)
        if folder and not Path(folder).is_dir():
            raise SourceNotFound(
                f"error while mounting volume {name}: failed to mount local volume: {folder}: no such directory",
                hint="make the folder first",
            )
        return Path(folder or volume.mountpoint)

    async def create(
        self,
        name: str = "",
        labels: Mapping[str, str] | None = None,
        *,
        options: Mapping[str, str] | None = None,
        anonymous: bool = False,
        durable: bool = True,
    ) -> Volume:
        """The volume of this name, made if it is not there; an empty `name` makes an anonymous one.

        Without `durable` a power cut may take its record (never its data). Raises InvalidArgument for a bad name.
        """
        if not name:
            name, anonymous = os.urandom(32).hex(), True
        check_volume_name(name)
        check_options(options or {})
        async with self._lock(name):
            found = self._volumes.get(name)
            if found is not None:
                return found
            now = self._clock.now_ns()
            volume = Volume(
                meta=Meta(id=name, created_at_ns=now, updated_at_ns=now),
                name=name,
                labels=dict(labels or {}),
                options=dict(options or {}),
                mountpoint=str(self._driver.mountpoint(name)),
                anonymous=anonymous,
            )
            await asyncio.to_thread(self._make, volume, durable)
            self._volumes[name] = volume
            self._happened("create", volume)
            return volume

    async def use(self, name: str, user: str) -> Path:
        """As `path`, for the container `user`; what its options want mounted is mounted until the last user's
        `release`. Raises SourceNotFound, or Conflict, where that cannot be."""
        filesystem = mount_of(self.get(name).options)
        if filesystem is None:
            return self.path(name)
        place = self._driver.mountpoint(name)
        async with self._lock(name):
            self._users.setdefault(name, set()).add(user)
            try:
                await asyncio.to_thread(mount, filesystem, place)
            except BaseException as error:
                self._users[name].discard(user)
                if isinstance(error, Conflict | SourceNotFound):
                    error.message = f"error while mounting volume {name}: {error.message}"
                raise
        return place

    async def release(self, name: str, user: str, others: Callable[[], Sequence[str]]) -> None:
        """The container `user` has ended. `others` are those that run with the volume, also from before this
        process began. Idempotent."""
        volume = self._volumes.get(name)
        if volume is None or mount_of(volume.options) is None:
            return
        async with self._lock(name):
            users = self._users.setdefault(name, set())
            users.discard(user)
            if not users and not others():
                await asyncio.to_thread(unmount, self._driver.mountpoint(name))

    async def fill(self, name: str, copy: Callable[[Path], bool]) -> None:
        """Fill the volume by `copy` if it is empty, once; others who would fill it wait. What stands in its place by
        its options is left as it is.

        `copy` runs in a worker, gets the path of a folder to make, and says whether it made one.
        """
        async with self._lock(name):
            if name in self._volumes and not self._volumes[name].options:
                await asyncio.to_thread(self._fill, name, copy)

    async def remove(self, name: str, users: Sequence[str] = (), *, force: bool = False) -> None:
        """Delete it with its data. `users` are the ids of the containers that mount it.

        Raises Conflict while there are any, NotFound for no such volume unless `force`.
        """
        async with self._lock(name):
            if name not in self._volumes:
                if force:
                    return
                self.get(name)
            if users:
                raise Conflict(
                    f"remove {name}: volume is in use - [{', '.join(users)}]", hint="remove these containers first"
                )
            await asyncio.to_thread(self._driver.remove, name)
            removed = self._volumes.pop(name, None)
            if removed is not None:
                self._happened("destroy", removed)

    def _happened(self, action: str, volume: Volume) -> None:
        attributes = {**volume.labels, "driver": volume.driver or "local"}
        self._tell(Event(kind=EventKind.VOLUME, action=action, id=volume.name, attributes=attributes))

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks[hash(name) % len(self._locks)]

    def _make(self, volume: Volume, durable: bool) -> None:
        self._driver.create(volume.name)
        write_atomic(self._folder / volume.name / _RECORD, codec.pack(volume), durable=durable)

    def _fill(self, name: str, copy: Callable[[Path], bool]) -> None:
        data = self._driver.mountpoint(name)
        if _has_content(data):
            return
        copying = self._folder / name / _COPYING
        shutil.rmtree(copying, ignore_errors=True)
        try:
            if not copy(copying):
                return
            copying.rename(self._folder / name / _COPIED)
        finally:
            shutil.rmtree(copying, ignore_errors=True)
        self._move_in(name)

    def _move_in(self, name: str) -> None:
        """Finish a filling; what is in the volume already is left alone."""
        copied = self._folder / name / _COPIED
        data = self._driver.mountpoint(name)
        about = copied.stat()
        for entry in copied.iterdir():
            if not os.path.lexists(data / entry.name):
                entry.rename(data / entry.name)
        os.chown(data, about.st_uid, about.st_gid)
        data.chmod(about.st_mode & 0o7777)
        shutil.rmtree(copied)

    def _load(self) -> None:
        self._folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        self._driver.sweep()
        for place in sorted(self._folder.iterdir()):
            if place.name.startswith("."):
                continue  # the driver's own
            try:
                self._load_one(place)
            except (OSError, ShoalError) as error:
                log.error("volume %s is left alone: %s", place.name, error)

    def _load_one(self, place: Path) -> None:
        sweep_unfinished(place)
        record = read_optional(place / _RECORD)
        if not record:
            # Never finished, or its record went with the power: data is kept, a folder without any goes.
            if not _has_content(self._driver.mountpoint(place.name)):
                shutil.rmtree(place)
                return
            now = self._clock.now_ns()
            volume = Volume(
                meta=Meta(id=place.name, created_at_ns=now, updated_at_ns=now),
                name=place.name,
                mountpoint=str(self._driver.mountpoint(place.name)),
                anonymous=looks_anonymous(place.name),
            )
            self._make(volume, durable=True)
        else:
            volume = codec.unpack(Volume, record)
        self._driver.create(volume.name)
        self._volumes[volume.name] = volume
        shutil.rmtree(place / _COPYING, ignore_errors=True)
        if (place / _COPIED).exists():
            self._move_in(volume.name)


def looks_anonymous(name: str) -> bool:
    """Whether a name is one that we make up: what is known of a volume whose record is gone."""
    return re.fullmatch(r"[0-9a-f]{64}", name) is not None


def _has_content(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is not None
    except FileNotFoundError:
        return False


def check_volume_name(name: str) -> None:
    """Docker's rules, and its hint for who meant a folder. Raises InvalidArgument."""
    if len(name) == 1:
        raise InvalidArgument(
            f"create {name}: volume name is too short, names should be at least two alphanumeric characters"
        )
    if not _NAME.fullmatch(name):
        raise InvalidArgument(
            f"volume name {name!r} includes invalid characters, only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed",
            hint="if you intended to pass a host directory, use absolute path",
        )
