"""Cgroup: the subtree in which all of a host runs, with its limits, on one hierarchy (v2) or one per controller (v1).

Through a cgroup namespace the host sees its subtree as a whole hierarchy; `mount` puts it where a host looks for it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from machine.drivers.local import kernel, tool
from shoal.errors import Unsupported

ROOT = Path("/sys/fs/cgroup")
_PERIOD_US = 100_000
_FLAGS = kernel.NOSUID | kernel.NODEV | kernel.NOEXEC


def make(group: str) -> None:
    for hierarchy in _hierarchies():
        folder = hierarchy
        for step in group.split("/"):
            if hierarchy == ROOT:
                _pass_on_controllers(folder)
            parent, folder = folder, folder / step
            folder.mkdir(exist_ok=True)
            if hierarchy.name == "cpuset":  # v1 makes them empty, and then nobody may join
                for inherited in ("cpuset.cpus", "cpuset.mems"):
                    (folder / inherited).write_text((parent / inherited).read_text())


def join(group: str) -> None:
    """Move this process there."""
    for hierarchy in _hierarchies():
        # Not our pid: in a pid namespace of its own the writer has another one.
        (hierarchy / group / "cgroup.procs").write_text("0")


def limit(group: str, *, memory_bytes: int, cpus: float) -> None:
    """0 is none. Raises Unsupported where the kernel does not hold one."""
    quota = int(cpus * _PERIOD_US)
    if _unified(ROOT):
        files = [(ROOT / group / "memory.max", str(memory_bytes)), (ROOT / group / "cpu.max", f"{quota} {_PERIOD_US}")]
    else:
        files = [
            (ROOT / "memory" / group / "memory.limit_in_bytes", str(memory_bytes)),
            (ROOT / "cpu" / group / "cpu.cfs_quota_us", str(quota)),
        ]
    for (path, value), wanted in zip(files, (memory_bytes, cpus), strict=True):
        if wanted:
            try:
                path.write_text(value)
            except OSError as error:
                raise Unsupported(f"{path} cannot be set to {value}: {error.strerror}") from error


def remove(group: str) -> None:
    """All of it, deepest first, once its last process is gone."""

    def gone() -> bool:
        left = False
        for hierarchy in _hierarchies():
            top = hierarchy / group
            for folder, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):
                    Path(folder).rmdir()
            left = left or top.exists()
        return not left

    tool.wait_until(gone, f"the cgroups {group} stay busy")


def mount(where: Path) -> None:
    """What this process is in, as a host's own hierarchies."""
    if _unified(ROOT):
        kernel.mount("cgroup2", where, "cgroup2", _FLAGS)
        return
    kernel.mount("tmpfs", where, "tmpfs", _FLAGS, "mode=755")
    for hierarchy in _hierarchies():
        (where / hierarchy.name).mkdir()
        if _unified(hierarchy):
            kernel.mount("cgroup2", where / hierarchy.name, "cgroup2", _FLAGS)
        else:
            option = "none,name=systemd" if hierarchy.name == "systemd" else hierarchy.name
            kernel.mount("cgroup", where / hierarchy.name, "cgroup", _FLAGS, option)


def _hierarchies() -> Iterator[Path]:
    if _unified(ROOT):
        yield ROOT
    else:
        yield from (path for path in sorted(ROOT.iterdir()) if path.is_dir() and not path.is_symlink())


def _unified(hierarchy: Path) -> bool:
    return (hierarchy / "cgroup.controllers").exists()


def _pass_on_controllers(folder: Path) -> None:
    """v2: what a group's children may control. One that has processes itself may not, and passes on what it did."""
    wanted = " ".join(f"+{each}" for each in (folder / "cgroup.controllers").read_text().split())
    with contextlib.suppress(OSError):
        (folder / "cgroup.subtree_control").write_text(wanted)
