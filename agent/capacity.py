"""Capacity: the CPUs and the memory that this host has. A host inside another one has what the root of its cgroups, as
it sees them, is limited to; `describe` tells managers, and the API its clients.
"""

from __future__ import annotations

import os
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_NANO = 1_000_000_000


def nano_cpus(cgroups: Path = _CGROUPS) -> int:
    """What a process here may use (sched_getaffinity(2)), or the bandwidth of all of them where that is less."""
    has = len(os.sched_getaffinity(0)) * _NANO
    quota, period = _bandwidth(cgroups)
    return min(has, quota * _NANO // period) if quota > 0 and period > 0 else has


def cpus() -> int:
    """The same in whole CPUs, at least one."""
    return -(-nano_cpus() // _NANO)


def memory_bytes(cgroups: Path = _CGROUPS) -> int:
    """All memory of the host."""
    has = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = (cgroups / "memory.max", cgroups / "memory" / "memory.limit_in_bytes")
    return min([has, *filter(None, map(_first, limits))])


def _bandwidth(cgroups: Path) -> tuple[int, int]:
    """Quota and period in microseconds; no quota is 0 or less. The kernel's own root has neither file (cgroups(7))."""
    unified = cgroups / "cpu.max"
    if unified.exists():
        return _first(unified), _first(unified, at=1)
    return _first(cgroups / "cpu" / "cpu.cfs_quota_us"), _first(cgroups / "cpu" / "cpu.cfs_period_us")


def _first(path: Path, at: int = 0) -> int:
    """A number of the file; 0 where there is no file, or the word max."""
    try:
        word = path.read_text().split()[at]
    except FileNotFoundError:
        return 0
    return 0 if word == "max" else int(word)
