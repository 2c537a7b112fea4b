"""A container's directory below `--root`: what is on record, what of it runs, and the gate that its process waits at.

    ID/state.json    `Record`; replaced by rename
    ID/config.json   the configuration with absolute paths, which exec and update need
    ID/gate          a FIFO that the first process reads before its exec, and holds open no longer than that
    ID/failure       what that process has to say when its exec fails

The status is never written down: it is read from the kernel each time, so that whoever is killed, the answer is true.
A record that is not `made` belongs to a `create` that did not finish; `delete --force` removes what it left.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from agent.kernel import pidfd
from agent.runtime.cgroups.group import Group, Groups
from agent.runtime.failure import Failure

OCI_VERSION = "1.2.0"
CREATING, CREATED, RUNNING, PAUSED, STOPPED = "creating", "created", "running", "paused", "stopped"
_ID = re.compile(r"[\w][\w+.-]{0,1023}", re.ASCII)


class Record(NamedTuple):
    id: str
    bundle: str
    rootfs: str
    created: str  # RFC 3339
    owner: str
    cgroup: str
    controllers: tuple[str, ...]
    own_pids: bool
    annotations: dict[str, str]
    pid: int = 0
    start_time: int = 0  # in ticks since boot; with the pid it names one process
    made: bool = False


class Place:
    """One container's directory."""

    def __init__(self, root: Path, id: str) -> None:
        if not _ID.fullmatch(id):
            raise Failure("InvalidArgument", f"{id!r} cannot be the id of a container")
        self.id = id
        self.path = root / id

    def make(self) -> None:
        """Claim the id. Raises Failure when it is taken."""
        self.path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        try:
            self.path.mkdir(mode=0o711)
        except FileExistsError:
            raise Failure("Conflict", f"container with id exists: {self.id}") from None

    def remove(self) -> None:
        """Idempotent. The directory is flat."""
        with contextlib.suppress(FileNotFoundError):
            for entry in self.path.iterdir():
                entry.unlink(missing_ok=True)
            self.path.rmdir()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One command at a time changes a container."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise self._missing() from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def save(self, record: Record) -> None:
        path = self.path / "state.json"
        path.with_suffix(".new").write_text(json.dumps(record._asdict()), encoding="utf-8")
        path.with_suffix(".new").rename(path)

    def load(self) -> Record:
        try:
            fields = json.loads((self.path / "state.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise self._missing() from None
        return Record(**{**fields, "controllers": tuple(fields["controllers"])})

    def save_config(self, config: dict[str, Any]) -> None:
        path = self.path / "config.json"
        path.with_suffix(".new").write_text(json.dumps(config), encoding="utf-8")
        path.with_suffix(".new").rename(path)

    def config(self) -> dict[str, Any]:
        config: dict[str, Any] = json.loads((self.path / "config.json").read_text(encoding="utf-8"))
        return config

    @property
    def gate(self) -> Path:
        return self.path / "gate"

    @property
    def failure(self) -> Path:
        return self.path / "failure"

    def _missing(self) -> Failure:
        return Failure("NotFound", f"container does not exist: {self.id}")


def places(root: Path) -> list[Place]:
    """Every container's."""
    if not root.is_dir():
        return []
    return [Place(root, entry.name) for entry in sorted(root.iterdir()) if entry.is_dir() and _ID.fullmatch(entry.name)]


def status(place: Place, record: Record, groups: Groups) -> str:
    if not record.made:
        return CREATING
    if not pidfd.alive(record.pid, record.start_time):
        return STOPPED
    if _waits(place.gate):
        return CREATED
    return PAUSED if group_of(record, groups).frozen else RUNNING


def group_of(record: Record, groups: Groups) -> Group:
    return groups.find(record.cgroup, (name for name in record.controllers if name in groups.layout.v1))


def state(record: Record, condition: str) -> dict[str, Any]:
    """The state of the specification, with what runc adds."""
    return {
        "ociVersion": OCI_VERSION,
        "id": record.id,
        "pid": 0 if condition == STOPPED else record.pid,
        "status": condition,
        "bundle": record.bundle,
        "rootfs": record.rootfs,
        "created": record.created,
        "annotations": record.annotations,
        "owner": record.owner,
    }


def _waits(gate: Path) -> bool:
    """Whether somebody holds the gate open: the first process, until its exec."""
    try:
        fd = os.open(gate, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENOENT):
            return False
        raise
    is_gate = stat.S_ISFIFO(os.fstat(fd).st_mode)
    os.close(fd)
    return is_gate
