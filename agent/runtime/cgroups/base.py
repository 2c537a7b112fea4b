"""What control groups this host has, and a container's place in them.

`Layout` is read once from the mount table: a v2 hierarchy, v1 hierarchies, or (hybrid) both. A `Group` uses v2 wherever
it can: membership by CLONE_INTO_CGROUP, kill, freeze and the device policy (BPF) need no controller there. It joins a
v1 hierarchy only for a limit that v2 does not serve here, because each costs a write at start and a rmdir at the end.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from agent.runtime.failure import Failure

REMOVE_TIMEOUT_S = 5.0
FREEZE_TIMEOUT_S = 10.0


class DeviceRule(NamedTuple):
    """One line of a device policy; the last rule that matches decides. -1 means any number."""

    allow: bool
    kind: str  # "a", "b" or "c"
    major: int
    minor: int
    access: str


class Throttle(NamedTuple):
    kind: str  # read_bps, write_bps, read_iops, write_iops
    major: int
    minor: int
    rate: int


class Weight(NamedTuple):
    """A device's share of I/O; 0 for none of its own."""

    major: int
    minor: int
    weight: int
    leaf_weight: int


class Limits(NamedTuple):
    """What a container may use; 0, "" and None mean no limit of this kind."""

    memory_bytes: int = 0
    swap_bytes: int | None = None  # memory and swap together, -1 for unlimited, as OCI has it
    reservation_bytes: int = 0
    swappiness: int | None = None
    cpu_shares: int = 0
    cpu_quota_us: int = 0
    cpu_period_us: int = 0
    cpus: str = ""
    mems: str = ""
    pids: int = 0
    io_weight: int = 0
    throttles: tuple[Throttle, ...] = ()
    devices: tuple[DeviceRule, ...] = ()
    unified: tuple[tuple[str, str], ...] = ()
    oom_kill_disable: bool = False
    check_usage: bool = False  # refuse a memory limit below what is in use, where the kernel would kill
    cpu_burst_us: int = 0
    cpu_idle: int | None = None
    realtime_runtime_us: int = 0
    realtime_period_us: int = 0
    io_leaf_weight: int = 0
    io_weights: tuple[Weight, ...] = ()
    hugepages: tuple[tuple[str, int], ...] = ()  # page size as the kernel names it, bytes
    rdma: tuple[tuple[str, str], ...] = ()  # device, its limits
    network_class: int = 0
    network_priorities: tuple[tuple[str, int], ...] = ()  # interface, priority

    @property
    def realtime(self) -> bool:
        """Whether they say anything of time for real-time schedulers."""
        return bool(self.realtime_runtime_us or self.realtime_period_us)

    def controllers(self) -> set[str]:
        """The v2 names of the controllers that these limits need."""
        needed = {
            "memory": self.memory_bytes
            or self.swap_bytes
            or self.reservation_bytes
            or self.swappiness is not None
            or self.oom_kill_disable,
            "cpu": self.cpu_shares
            or self.cpu_quota_us
            or self.cpu_burst_us
            or self.cpu_idle is not None
            or self.realtime,
            "cpuset": self.cpus or self.mems,
            "pids": self.pids,
            "io": self.io_weight or self.io_leaf_weight or self.io_weights or self.throttles,
            "hugetlb": self.hugepages,
            "rdma": self.rdma,
            "net_cls": self.network_class,
            "net_prio": self.network_priorities,
        }
        return {name for name, is_needed in needed.items() if is_needed}


class V1Mount(NamedTuple):
    path: str
    options: str  # what mount(2) needs to show the same hierarchy: "cpu,cpuacct"


class Layout(NamedTuple):
    """The host's hierarchies. `v2` is the mount point of the unified one, or ""."""

    v2: str
    v2_controllers: frozenset[str]
    v1: Mapping[str, V1Mount]  # v1 controller name ("blkio", not "io") to its mount
    named: Mapping[str, V1Mount] = {}  # v1 hierarchies without controllers ("name=systemd"): ours need none of them


_V1_CONTROLLERS = (
    "cpu",
    "cpuacct",
    "cpuset",
    "memory",
    "devices",
    "freezer",
    "blkio",
    "pids",
    "perf_event",
    "net_cls",
    "net_prio",
    "hugetlb",
    "rdma",
    "misc",
)
V1_NAMES = {"io": "blkio"}  # v2 name to v1 name, where they differ


def v2_name(controller: str) -> str:
    """Of a controller by its v1 name."""
    return next((v2 for v2, v1 in V1_NAMES.items() if v1 == controller), controller)


def detect(mounts: str | None = None) -> Layout:
    """Read the layout from a mount table (default: this process's own)."""
    text = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="surrogateescape") if mounts is None else mounts
    v2, controllers, v1, named = "", frozenset[str](), dict[str, V1Mount](), dict[str, V1Mount]()
    for line in text.splitlines():
        _, path, kind, options, *_ = line.split()
        if not path.startswith("/sys/fs/cgroup") or "ro" in options.split(","):
            continue
        if kind == "cgroup2" and not v2:
            v2 = path
            with contextlib.suppress(OSError):
                controllers = frozenset(Path(path, "cgroup.controllers").read_text(encoding="ascii").split())
        elif kind == "cgroup":
            names = [name for name in options.split(",") if name in _V1_CONTROLLERS]
            for name in names:
                v1.setdefault(name, V1Mount(path, ",".join(names)))
            for name in options.split(","):
                if name.startswith("name="):
                    named.setdefault(name, V1Mount(path, f"none,{name}"))
    return Layout(v2, controllers, v1, named)


def write(path: str | Path, *texts: str) -> None:
    """Write one control file, each text in one write(2), as the kernel wants it; OSError carries the path."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        for text in texts:
            _write(fd, path, text)
    finally:
        os.close(fd)


def _write(fd: int, path: str | Path, text: str) -> None:
    try:
        os.write(fd, text.encode())
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno or 0), f"{path} <- {text}") from error


def make(path: str) -> None:
    """Create a group and its parents; what exists stays as it is."""
    try:
        os.mkdir(path)  # noqa: PTH102 - a hot path, and most have their parents
    except FileExistsError:
        return
    except FileNotFoundError:
        os.makedirs(path, exist_ok=True)  # noqa: PTH103


def members(path: str) -> list[int]:
    """The processes in a group and in the groups below it, by their pids in our namespace."""
    found: list[int] = []
    for directory, _, _ in os.walk(path):
        with contextlib.suppress(OSError):
            text = Path(directory, "cgroup.procs").read_text(encoding="ascii")
            found += [pid for pid in map(int, text.split()) if pid]
    return found


def text(path: str) -> str:
    """What is in a control file; "" when there is none."""
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except OSError:
        return ""


def counter(path: str, name: str) -> int:
    """The value behind `name` in a file of "name value" lines; 0 when there is none."""
    try:
        text = Path(path).read_text(encoding="ascii")
    except OSError:
        return 0
    return next((int(value) for key, _, value in (line.partition(" ") for line in text.splitlines()) if key == name), 0)


def removed_at_once(paths: Iterable[str]) -> bool:
    """Remove groups in which nobody is any more. False when that cannot be now: `remove_tree` waits, or says why."""
    for path in paths:
        try:
            os.rmdir(path)  # noqa: PTH106 - a hot path
        except FileNotFoundError:
            continue
        except OSError:
            return False
    return True


def remove_tree(paths: Iterable[str]) -> None:
    """Remove groups whose processes are dead or dying; waits for the dying. Raises Failure when some stay alive."""
    deadline = time.monotonic() + REMOVE_TIMEOUT_S
    pause = 0.001
    for top in paths:
        while True:
            try:
                os.rmdir(top)  # noqa: PTH106 - a hot path
                break
            except FileNotFoundError:
                break
            except OSError as error:
                if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
                    raise
            for directory, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):
                    Path(directory).rmdir()
            if not Path(top).exists():
                break
            if time.monotonic() > deadline:
                raise Failure(
                    "Conflict", f"cgroup {top} is still in use by {members(top) or 'processes that are ending'}"
                )
            time.sleep(pause)  # the kernel offers no event for "the last zombie of a v1 group is gone"
            pause = min(pause * 2, 0.05)
