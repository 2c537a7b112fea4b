"""Limits as cgroup v1 has them: pure tables of (controller, file, value), and the freezer.

A starting process joins by writing "0" to `tasks`: a thread that moves itself needs no global lock in the kernel, where
moving a pid through `cgroup.procs` waits for an RCU grace period in every hierarchy.
"""

from __future__ import annotations

import select
import time
from pathlib import Path
from typing import NamedTuple

from agent.runtime.cgroups import base
from agent.runtime.cgroups.base import Layout, Limits, V1Mount
from agent.runtime.failure import Failure

_TURN_S = 0.001
# The group at the top has no weight; another file of the BFQ scheduler's tells whether those below have one.
_AT_TOP = dict.fromkeys(("blkio.bfq.weight", "blkio.bfq.weight_device"), "blkio.bfq.io_serviced")


class Setting(NamedTuple):
    controller: str
    file: str
    value: str
    optional: bool = False  # the file may be missing: swap accounting, the BFQ scheduler


def settings(limits: Limits) -> list[Setting]:
    """What to write, in order."""
    found: list[Setting] = []
    if limits.memory_bytes:
        found.append(Setting("memory", "memory.limit_in_bytes", str(limits.memory_bytes)))
    if limits.swap_bytes:
        found.append(Setting("memory", "memory.memsw.limit_in_bytes", str(limits.swap_bytes), optional=True))
    if limits.reservation_bytes:
        found.append(Setting("memory", "memory.soft_limit_in_bytes", str(limits.reservation_bytes)))
    if limits.swappiness is not None:
        found.append(Setting("memory", "memory.swappiness", str(limits.swappiness)))
    if limits.oom_kill_disable:
        found.append(Setting("memory", "memory.oom_control", "1"))
    if limits.cpu_shares:
        found.append(Setting("cpu", "cpu.shares", str(limits.cpu_shares)))
    if limits.cpu_period_us:
        found.append(Setting("cpu", "cpu.cfs_period_us", str(limits.cpu_period_us)))
    if limits.cpu_quota_us:
        found.append(Setting("cpu", "cpu.cfs_quota_us", str(limits.cpu_quota_us)))
    if limits.cpu_burst_us:
        found.append(Setting("cpu", "cpu.cfs_burst_us", str(limits.cpu_burst_us)))
    if limits.cpu_idle is not None:
        found.append(Setting("cpu", "cpu.idle", str(limits.cpu_idle)))
    if limits.realtime_period_us:
        found.append(Setting("cpu", "cpu.rt_period_us", str(limits.realtime_period_us)))
    if limits.realtime_runtime_us:
        found.append(Setting("cpu", "cpu.rt_runtime_us", str(limits.realtime_runtime_us)))
    if limits.cpus:
        found.append(Setting("cpuset", "cpuset.cpus", limits.cpus))
    if limits.mems:
        found.append(Setting("cpuset", "cpuset.mems", limits.mems))
    if limits.pids:
        found.append(Setting("pids", "pids.max", str(limits.pids)))
    if limits.io_weight:
        found.append(Setting("blkio", "blkio.bfq.weight", str(limits.io_weight), optional=True))
    if limits.io_leaf_weight:
        found.append(Setting("blkio", "blkio.leaf_weight", str(limits.io_leaf_weight), optional=True))
    for device in limits.io_weights:
        number = f"{device.major}:{device.minor}"
        if device.weight:
            found.append(Setting("blkio", "blkio.bfq.weight_device", f"{number} {device.weight}", optional=True))
        if device.leaf_weight:
            value = f"{number} {device.leaf_weight}"
            found.append(Setting("blkio", "blkio.leaf_weight_device", value, optional=True))
    for throttle in limits.throttles:
        kind = throttle.kind.replace("_", "_device:").split(":")
        file = f"blkio.throttle.{kind[0].removesuffix('_device')}_{kind[1]}_device"
        found.append(Setting("blkio", file, f"{throttle.major}:{throttle.minor} {throttle.rate}"))
    found += [Setting("hugetlb", f"hugetlb.{size}.limit_in_bytes", str(limit)) for size, limit in limits.hugepages]
    found += [Setting("rdma", "rdma.max", f"{device} {words}") for device, words in limits.rdma]
    if limits.network_class:
        found.append(Setting("net_cls", "net_cls.classid", str(limits.network_class)))
    found += [Setting("net_prio", "net_prio.ifpriomap", f"{name} {rank}") for name, rank in limits.network_priorities]
    return found


def discarded(limits: Limits, layout: Layout) -> list[str]:
    """The optional files that these limits would be written to, were they there."""
    found = []
    for setting in settings(limits):
        served = setting.controller in layout.v1 and base.v2_name(setting.controller) not in layout.v2_controllers
        if setting.optional and served:
            top = Path(layout.v1[setting.controller].path)
            if not (top / _AT_TOP.get(setting.file, setting.file)).exists():
                found.append(setting.file)
    return found


def prepare(mount: V1Mount, group: str) -> str:
    """Create the group below `mount`; a cpuset gets its parent's processors, or nothing could join it."""
    path = f"{mount.path}/{group}"
    base.make(path)
    if "cpuset" in mount.options.split(","):
        directory = mount.path
        for part in group.split("/"):
            parent, directory = directory, f"{directory}/{part}"
            for name in ("cpuset.cpus", "cpuset.mems"):
                if not Path(directory, name).read_text(encoding="ascii").strip():
                    base.write(f"{directory}/{name}", Path(parent, name).read_text(encoding="ascii").strip())
    return path


def oom_kills(memory_group: str) -> int:
    """How many processes of the group the kernel killed for want of memory."""
    return base.counter(f"{memory_group}/memory.oom_control", "oom_kill")


def gather(group: str, reference_group: str) -> None:
    """Move everything that is in `reference_group`, and what it forks meanwhile, into `group` too."""
    while strangers := set(base.members(reference_group)) - set(base.members(group)):
        for pid in strangers:
            try:
                base.write(f"{group}/cgroup.procs", str(pid))
            except ProcessLookupError:
                continue


def freeze(freezer_group: str, reference_group: str) -> None:
    """Move everything that is in `reference_group` into the freezer and stop it."""
    base.make(freezer_group)
    gather(freezer_group, reference_group)
    _set_state(freezer_group, "FROZEN")


def thaw(freezer_group: str) -> None:
    """Let it run again; a group that was never frozen is fine."""
    if Path(freezer_group).exists():
        _set_state(freezer_group, "THAWED")


def _set_state(group: str, state: str) -> None:
    """Return when it is so. Each process has to have a turn for it, and a busy host gives turns late."""
    deadline = time.monotonic() + base.FREEZE_TIMEOUT_S
    while True:  # FREEZING becomes FROZEN only while somebody reads or writes the file
        base.write(f"{group}/freezer.state", state)
        if Path(group, "freezer.state").read_text(encoding="ascii").strip() == state:
            return
        if time.monotonic() > deadline:
            raise Failure("DeadlineExceeded", f"cgroup {group} does not become {state}")
        select.select((), (), (), _TURN_S)
