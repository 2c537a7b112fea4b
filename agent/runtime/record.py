"""A container's state on disk, below the keeper's run directory, so that the next keeper finds everything again.

    ID/state     lines of JSON: the order to start it, as it came, then what became of it
    ID/stdin, stdout, stderr    FIFOs;   ID/root    where the root is mounted, inside the container's namespace only
    ID/mark      how far its output has come into its log

A line counts when it is whole, and begins with its newline, so that a torn one spoils no other. It lives on a tmpfs and
need not survive a reboot: the boot id tells. A record in phase "starting" belongs to a start whose answer nobody got;
what it left is removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from agent.kernel import syscalls as sys
from agent.runtime.failure import Failure
from agent.runtime.spec import config as specs
from agent.runtime.spec.config import Spec

STARTING, RUNNING, EXITED = "starting", "running", "exited"
UNKNOWN_CODE = 255  # of one whose end nobody saw
_ID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")


class ExitRecord(NamedTuple):
    code: int  # 128 + n when killed by signal n
    oom_killed: bool
    finished_at_ns: int
    known: bool = True


class Record(NamedTuple):
    """From `phase` on it changes."""

    id: str
    boot: str
    cgroup: str
    own_pids: bool  # a pid namespace of its own: the end of its first process is the end of all
    log_path: str
    log_max_bytes: int
    log_max_files: int
    terminal: bool
    runtime: str  # the program of another runtime that runs it; "" for ours
    journal: dict[str, str]
    phase: str = STARTING
    controllers: tuple[str, ...] = ()
    pid: int = 0
    start_time: int = 0  # in ticks since boot; with the pid it names one process; 0 where the inode does
    inode: int = 0  # of its pidfd
    started_at_ns: int = 0
    exit: ExitRecord | None = None

    @classmethod
    def ordered(cls, container: Mapping[str, Any], config: Spec, boot: str) -> Record:
        """Of a start that begins. `config` is that of `container`, parsed."""
        below = f"{container['cgroup_parent']}/{config.cgroup or container['id']}"
        return cls(
            id=container["id"],
            boot=boot,
            cgroup=config.cgroup.lstrip("/") if config.cgroup.startswith("/") else below,
            own_pids=config.namespaces.get(sys.CLONE_NEWPID) == "",
            log_path=container["log_path"],
            log_max_bytes=container["log_max_bytes"],
            log_max_files=container["log_max_files"],
            terminal=container["tty"],
            runtime=container["runtime"],
            journal=container["journal"],
        )

    @property
    def alone(self) -> bool:
        """Its first process was seen to end, and with it the kernel has ended all others."""
        return self.own_pids and self.exit is not None and self.exit.known

    def with_exit(self, exit_: ExitRecord) -> Record:
        return self._replace(phase=EXITED, exit=exit_)


_CHANGING = Record._fields.index("phase")


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


class Records:
    """The directory of all records."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, container: str, name: str = "") -> str:
        if not _ID.fullmatch(container):
            raise Failure("InvalidArgument", f"{container!r} cannot be the id of a container")
        return f"{self.directory}/{container}/{name}".rstrip("/")

    def begin(self, record: Record, order: bytes) -> None:
        """The first that is written of a start: torn, it is as good as none, since nothing is made yet."""
        _append(self._state(record.id), b'{"boot":"%s","order":%s}' % (record.boot.encode(), order), os.O_CREAT)

    def save(self, record: Record) -> None:
        """Write down what may have changed since `begin`."""
        fields = dict(zip(Record._fields[_CHANGING:], record[_CHANGING:], strict=True))
        if record.exit is not None:
            fields["exit"] = record.exit._asdict()
        _append(self._state(record.id), b"\n" + json.dumps(fields).encode())

    def config(self, container: str) -> dict[str, Any]:
        """The OCI config that it was started with."""
        with open(self._state(container), "rb") as file:
            config: dict[str, Any] = json.loads(json.loads(file.readline())["order"]["container"]["config"])
            return config

    def _state(self, container: str) -> str:
        return self.path(container, "state")

    def all(self) -> Iterator[tuple[str, Record | None]]:
        """Every container's id, with None for one whose record cannot be read."""
        for entry in sorted(self.directory.iterdir()):
            if entry.is_dir():
                yield entry.name, _load(entry / "state")

    def make(self, container: str) -> None:
        """An empty directory for a container, with one inside where its root goes."""
        directory = self.path(container)
        try:
            os.mkdir(directory, 0o700)
        except FileExistsError:
            self.remove(container)
            os.mkdir(directory, 0o700)
        os.mkdir(f"{directory}/root", 0o700)

    def remove(self, container: str) -> None:
        """Forget a container and delete its files. Idempotent."""
        directory = self.path(container)
        try:  # flat but for the directory of the root, unless somebody was here
            for name in os.listdir(directory):
                (os.rmdir if name == "root" else os.unlink)(f"{directory}/{name}")
            os.rmdir(directory)
        except OSError:
            import shutil  # with the packers that it knows, a part of the keeper's memory

            shutil.rmtree(directory, ignore_errors=True)


def _append(path: str, data: bytes, flags: int = 0) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | flags, 0o600)
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(fd, left) :]
    finally:
        os.close(fd)


def _load(path: Path) -> Record | None:
    try:
        first, *later = path.read_bytes().split(b"\n")
        begun = json.loads(first)
        container = begun["order"]["container"]
        record = Record.ordered(container, specs.parse(json.loads(container["config"])), begun["boot"])
    except (OSError, ValueError, KeyError, TypeError, Failure):
        return None
    for line in later:
        with contextlib.suppress(ValueError):  # torn: its writer was killed
            record = record._replace(**_changes(json.loads(line)))
    return record


def _changes(fields: dict[str, Any]) -> dict[str, Any]:
    exit_ = ExitRecord(**fields["exit"]) if fields["exit"] else None
    return {**fields, "controllers": tuple(fields["controllers"]), "exit": exit_}
