"""A container's state on disk, below the keeper's run directory, so that the next keeper finds everything again.

    ID/state.json    what is below as `Record`; replaced by rename, never half written
    ID/config.json   the OCI config, which an exec needs
    ID/stdin, stdout, stderr    FIFOs;   ID/root    where the root is mounted, inside the container's namespace only
    ID/mark          how far its output has come into its log

It lives on a tmpfs and need not survive a reboot: the boot id tells. A record in phase "starting" belongs to a start
whose answer nobody got; what it left is removed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from agent.runtime.failure import Failure

STARTING, RUNNING, EXITED = "starting", "running", "exited"
UNKNOWN_CODE = 255  # of one whose end nobody saw
_ID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")


@dataclass(frozen=True, slots=True)
class ExitRecord:
    code: int  # 128 + n when killed by signal n
    oom_killed: bool
    finished_at_ns: int
    known: bool = True

    def fields(self) -> dict[str, Any]:
        """As it is written and told."""
        return {name: getattr(self, name) for name in ExitRecord.__slots__}


@dataclass(frozen=True, slots=True)
class Record:
    id: str
    phase: str
    boot: str
    cgroup: str
    controllers: tuple[str, ...]
    own_pids: bool  # a pid namespace of its own: the end of its first process is the end of all
    log_path: str
    log_max_bytes: int
    log_max_files: int
    terminal: bool
    runtime: str = ""  # the program of another runtime that runs it; "" for ours
    pid: int = 0
    start_time: int = 0  # in ticks since boot; with the pid it names one process; 0 where the inode does
    inode: int = 0  # of its pidfd
    started_at_ns: int = 0
    exit: ExitRecord | None = None
    journal: dict[str, str] = field(default_factory=dict)

    @property
    def alone(self) -> bool:
        """Its first process was seen to end, and with it the kernel has ended all others."""
        return self.own_pids and self.exit is not None and self.exit.known

    def with_exit(self, exit_: ExitRecord) -> Record:
        return replace(self, phase=EXITED, exit=exit_)


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

    def begin(self, record: Record) -> None:
        """The first that is written of a start: torn, it is as good as none, since nothing is made yet."""
        _write(self.path(record.id, "state.json"), json.dumps(_fields(record)))

    def save(self, record: Record) -> None:
        path = self.path(record.id, "state.json")
        _write(path + ".new", json.dumps(_fields(record)))
        os.rename(path + ".new", path)

    def save_config(self, container: str, config: dict[str, Any]) -> None:
        _write(self.path(container, "config.json"), json.dumps(config))

    def config(self, container: str) -> dict[str, Any]:
        config: dict[str, Any] = json.loads(Path(self.path(container, "config.json")).read_text(encoding="utf-8"))
        return config

    def all(self) -> Iterator[tuple[str, Record | None]]:
        """Every container's id, with None for one whose record cannot be read."""
        for entry in sorted(self.directory.iterdir()):
            if entry.is_dir():
                yield entry.name, _load(entry / "state.json")

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
            shutil.rmtree(directory, ignore_errors=True)


def _fields(record: Record) -> dict[str, Any]:
    """As `dataclasses.asdict`, which copies what needs no copy."""
    fields = {name: getattr(record, name) for name in Record.__slots__}
    if record.exit is not None:
        fields["exit"] = record.exit.fields()
    return fields


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        data = memoryview(text.encode())
        while data:
            data = data[os.write(fd, data) :]
    finally:
        os.close(fd)


def _load(path: Path) -> Record | None:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        fields["controllers"] = tuple(fields["controllers"])
        fields["exit"] = ExitRecord(**fields["exit"]) if fields["exit"] else None
        return Record(**fields)
    except (OSError, ValueError, KeyError, TypeError):
        return None
