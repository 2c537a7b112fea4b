"""A container on disk: `FOLDER/ID/` holds its record, its state, its writable layer and its log.

The record (what was asked for and what it came to) is written once and synced; the state (what is) often and, for
most containers, without a sync: a state that a power cut tears reads as "created". Containers that go when they
exit are not worth a sync at all: their record has another name, `TRANSIENT`, and one that cannot be read is swept
with its folder, where a bad durable record is left for somebody to look at, unless it is empty: nobody was told of that
container before the power went. A folder is deleted by renaming it into
`.trash` first, so that a container is whole or gone.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from agent.kernel.spread import spread
from shoal import codec
from shoal.errors import ShoalError
from shoal.files import overwrite, read_optional, sweep_unfinished, write_atomic, write_new
from shoal.model.base import Value
from shoal.model.container import Container, ContainerStatus

log = logging.getLogger(__name__)

DURABLE, TRANSIENT, STATE = "container", "transient", "state"
TRASH = ".trash"
# States are filled up to a multiple of this, so that most can be written over the one before.
_STATE_BYTES = 512
_PAGE_BYTES = 4096


class Record(Value, frozen=True):
    """`pending`: its volumes may not be there yet, so that a crash now means that it was never created.
    `amending`: its limits may not be in force yet. `stop_signal` is the user's or the image's word; empty: neither
    has one."""

    container: Container = Container()
    pending: bool = False
    stop_signal: str = ""
    amending: bool = False

    @property
    def durable(self) -> bool:
        """What goes when it ends, and what a task's runner would make again, is not worth a sync."""
        return not (self.container.auto_remove or self.container.task_id)


class State(Value, frozen=True):
    """What is, and what the next decision about it needs. `stopped`: by hand. `boot_id` is the host's boot in which
    it was last started, `attempts` and `delay_ns` what the last decision to restart said. `returning`: it was told
    to end so that it starts again."""

    status: ContainerStatus = ContainerStatus()
    stopped: bool = False
    attempts: int = 0
    delay_ns: int = 0
    boot_id: str = ""
    returning: bool = False


class Records:
    """All methods block on the disk, most for less than a context switch takes; those that sync say so."""

    def __init__(self, folder: Path) -> None:
        self._root = folder
        self._trash = folder / TRASH

    def open(self) -> None:
        """Make the folder where there is none, and finish deletions that a crash interrupted."""
        self._root.mkdir(mode=0o710, parents=True, exist_ok=True)
        spread(str(self._root))
        self.empty_trash()
        self._trash.mkdir(exist_ok=True)

    def folder(self, container_id: str) -> Path:
        return self._root / container_id

    def make(self, container_id: str) -> None:
        """The folders of a new container."""
        folder = f"{self._root}/{container_id}"
        for path, mode in ((folder, 0o710), (f"{folder}/upper", 0o755), (f"{folder}/work", 0o700)):
            os.mkdir(path, mode)  # noqa: PTH102 - a hot path

    def save(self, record: Record, *, durable: bool) -> None:
        """With `durable`, synced: it survives the power."""
        name = DURABLE if durable else TRANSIENT
        write_atomic(f"{self._root}/{record.container.meta.id}/{name}", codec.pack(record), durable=durable)
        if durable:
            _sync(self._root)

    @contextlib.contextmanager
    def begin(self, record: Record) -> Iterator[tuple[int, ...]]:
        """The first save of a durable one, without waiting for the disk: the container is there to stay once the
        descriptors that the block gets are synced."""
        folder = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            written = write_new(f"{self._root}/{record.container.meta.id}/{DURABLE}", codec.pack(record))
            try:
                yield written, folder
            finally:
                os.close(written)
        finally:
            os.close(folder)

    def save_state(self, container_id: str, state: State, *, durable: bool) -> None:
        path = f"{self._root}/{container_id}/{STATE}"
        packed = codec.pack(state)
        data = packed + bytes(-len(packed) % _STATE_BYTES)
        if durable or len(data) > _PAGE_BYTES or not overwrite(path, data):
            write_atomic(path, data, durable=durable)

    def load(self) -> list[tuple[Record, State]]:
        """Every container there is; sweeps folders that never became one."""
        found = []
        for folder in sorted(self._root.iterdir()):
            if folder.name.startswith("."):
                continue
            try:
                sweep_unfinished(folder)
                loaded = _load(folder)
            except (ShoalError, OSError) as error:
                log.error("container %s is left alone: %s", folder.name, error)
                continue
            if loaded is None:
                self.discard(folder.name)
            else:
                found.append(loaded)
        return found

    def discard(self, container_id: str) -> None:
        """Gone as soon as this returns; `empty_trash` frees the space."""
        with contextlib.suppress(FileNotFoundError):
            os.rename(f"{self._root}/{container_id}", f"{self._trash}/{container_id}.{os.urandom(4).hex()}")  # noqa: PTH104

    def empty_trash(self) -> None:
        """May take long: the writable layers of what was discarded."""
        if self._trash.is_dir():
            for name in os.listdir(self._trash):  # noqa: PTH208 - a hot path
                _remove(f"{self._trash}/{name}")


def _remove(folder: str) -> None:
    """Most are flat and their layer is empty; what a container wrote is left to shutil, which no link leads astray.
    Another thread may be at it, too."""
    with contextlib.suppress(OSError):
        os.rmdir(f"{folder}/work/work")  # noqa: PTH106 - as all here
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):  # noqa: PTH208
            with contextlib.suppress(OSError):
                (os.rmdir if name in ("upper", "work") else os.unlink)(f"{folder}/{name}")
    try:
        os.rmdir(folder)  # noqa: PTH106
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)


def _load(folder: Path) -> tuple[Record, State] | None:
    durable = read_optional(folder / DURABLE)
    if durable:
        return codec.unpack(Record, durable), _load_state(folder)
    transient = read_optional(folder / TRANSIENT)
    if transient is None:
        return None
    try:
        return codec.unpack(Record, transient), _load_state(folder)
    except ShoalError:
        return None


def _load_state(folder: Path) -> State:
    data = read_optional(folder / STATE)
    if not data:
        return State()
    try:
        return codec.unpack(State, data.rstrip(b"\0"))  # its last field is never a zero
    except ShoalError as error:
        log.warning("state of container %s is lost: %s", folder.name, error)
        return State()


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
