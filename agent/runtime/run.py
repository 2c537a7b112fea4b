"""One run of a container as the agent and the keeper tell each other of it: what is started, and how it ended."""

from __future__ import annotations

from typing import Any

import msgspec


class Rootfs(msgspec.Struct, frozen=True):
    """What becomes the container's /: layers under a writable directory, or one directory bound as it is."""

    lower: tuple[str, ...] = ()  # top first
    upper: str = ""  # none: read-only
    work: str = ""
    volatile: bool = False  # no sync: for a writable layer that is never used again
    path: str = ""  # instead of layers


class Start(msgspec.Struct, frozen=True):
    """A container to start. `config` is an OCI runtime-spec 1.x config.json; the root comes from `rootfs`.

    A relative or absent `linux.cgroupsPath` is taken below the runtime's cgroup parent. The annotation
    `shoal.seccomp: default` stands for docker's default profile, for the capabilities that the process has.
    """

    id: str
    config: dict[str, Any]
    rootfs: Rootfs
    runtime: str = ""  # the program of another OCI runtime that is to run it; "" for ours
    log_path: str = ""
    log_max_bytes: int = 0  # 0: no rotation
    log_max_files: int = 1
    journal: dict[str, str] = {}  # not empty: the log goes to the host's journal, each entry with these fields
    tty: bool = False
    stdin: bool = False
    rows: int = 0
    columns: int = 0


class Started(msgspec.Struct, frozen=True):
    pid: int  # in the keeper's pid namespace
    started_at_ns: int


class Exit(msgspec.Struct, frozen=True):
    """`known` is False when nobody was there to see the end and the kernel no longer tells: the code means nothing."""

    code: int  # 128 + n after signal n
    oom_killed: bool
    finished_at_ns: int
    known: bool = True
