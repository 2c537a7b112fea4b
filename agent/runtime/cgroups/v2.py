"""Limits as cgroup v2 has them: a pure table of (file, value); controllers from the root down; freeze and kill."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import time
from pathlib import Path
from typing import NamedTuple

from agent.runtime.cgroups import base
from agent.runtime.cgroups.base import Limits
from agent.runtime.failure import Failure

_THROTTLES = {"read_bps": "rbps", "write_bps": "wbps", "read_iops": "riops", "write_iops": "wiops"}


class Weighing(NamedTuple):
    """A weight for the BFQ scheduler, and the same for the kernel's other way of sharing a device (io.cost), whose
    scale is another. Which of the two there is, the group's files tell, and for a single device the kernel."""

    bfq: str
    cost: str


def weights(limits: Limits) -> list[Weighing]:
    """The shares of I/O, in order: a new one of the group's takes the place of its devices'."""
    shares = [("", limits.io_weight), *((f"{each.major}:{each.minor} ", each.weight) for each in limits.io_weights)]
    return [Weighing(f"{device}{weight}", f"{device}{_io_weight(weight)}") for device, weight in shares if weight]


def settings(limits: Limits) -> list[tuple[str, str]]:
    """What to write, in order, besides `weights`. Shares are converted as systemd and runc do."""
    found: list[tuple[str, str]] = []
    if limits.memory_bytes:
        found.append(("memory.max", str(limits.memory_bytes)))
    if limits.swap_bytes is not None and limits.swap_bytes < 0:
        found.append(("memory.swap.max", "max"))
    elif limits.swap_bytes and limits.memory_bytes:
        found.append(("memory.swap.max", str(max(limits.swap_bytes - limits.memory_bytes, 0))))
    if limits.reservation_bytes:
        found.append(("memory.low", str(limits.reservation_bytes)))
    if limits.cpu_shares:
        found.append(("cpu.weight", str(1 + (max(limits.cpu_shares, 2) - 2) * 9999 // 262142)))
    if limits.cpu_quota_us or limits.cpu_period_us:
        found.append(("cpu.max", f"{limits.cpu_quota_us or 'max'} {limits.cpu_period_us or 100000}"))
    if limits.cpu_burst_us:
        found.append(("cpu.max.burst", str(limits.cpu_burst_us)))
    if limits.cpu_idle is not None:
        found.append(("cpu.idle", str(limits.cpu_idle)))
    if limits.cpus:
        found.append(("cpuset.cpus", limits.cpus))
    if limits.mems:
        found.append(("cpuset.mems", limits.mems))
    if limits.pids:
        found.append(("pids.max", str(limits.pids)))
    found += [("io.max", f"{t.major}:{t.minor} {_THROTTLES[t.kind]}={t.rate}") for t in limits.throttles]
    found += [(f"hugetlb.{size}.max", str(limit)) for size, limit in limits.hugepages]
    found += [("rdma.max", f"{device} {words}") for device, words in limits.rdma]
    for name, value in limits.unified:
        if "/" in name:
            raise Failure("InvalidArgument", f"cgroup file {name!r} is not a file name")
        found.append((name, value))
    return found


def _io_weight(weight: int) -> int:
    return 1 + (max(weight, 10) - 10) * 9999 // 990


def enable(mount: str, group: str, controllers: set[str]) -> None:
    """Switch controllers on for `group` in every ancestor's subtree_control."""
    directory = mount
    for part in group.split("/"):
        base.make(directory)
        control = Path(directory, "cgroup.subtree_control")
        missing = controllers - set(control.read_text(encoding="ascii").split())
        if missing:
            _switch_on(directory, " ".join(f"+{name}" for name in sorted(missing)))
        directory = f"{directory}/{part}"


def _switch_on(directory: str, text: str) -> None:
    """A group with processes may not have controllers below it (but for the real root): move ours to a leaf."""
    try:
        base.write(f"{directory}/cgroup.subtree_control", text)
        return
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
    leaf = f"{directory}/shoal-init"
    base.make(leaf)
    for pid in Path(directory, "cgroup.procs").read_text(encoding="ascii").split():
        with contextlib.suppress(ProcessLookupError):
            base.write(f"{leaf}/cgroup.procs", pid)
    base.write(f"{directory}/cgroup.subtree_control", text)


def oom_kills(group: str) -> int:
    """How many processes of the group the kernel killed for want of memory."""
    return base.counter(f"{group}/memory.events", "oom_kill")


def kill(group: str) -> bool:
    """SIGKILL every process of the group at once; False on kernels before 5.14, where there is no such file."""
    try:
        base.write(f"{group}/cgroup.kill", "1")
    except FileNotFoundError:
        return False
    return True


def set_frozen(group: str, *, frozen: bool) -> None:
    """Stop or go on, and return when it is so. Raises Failure when the kernel does not get there in time."""
    base.write(f"{group}/cgroup.freeze", "1" if frozen else "0")
    events = os.open(f"{group}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
    try:
        poll = select.poll()
        poll.register(events, select.POLLPRI)
        deadline = time.monotonic() + base.FREEZE_TIMEOUT_S
        while f"frozen {int(frozen)}".encode() not in os.pread(events, 4096, 0):
            left = deadline - time.monotonic()
            if left <= 0:
                raise Failure("DeadlineExceeded", f"cgroup {group} does not {'freeze' if frozen else 'thaw'}")
            poll.poll(left * 1000)
    finally:
        os.close(events)
