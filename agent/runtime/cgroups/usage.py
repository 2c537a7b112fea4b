"""What a group's processes use: read from whichever hierarchy counts it, else added up from its processes.

A v1 hierarchy is joined for a limit only (`base`), so that most containers of a hybrid host are counted by no
memory, pids or blkio controller. Their memory is then the proportional share of each living process, and what a
process had read or written is forgotten with it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from agent.runtime.cgroups import base

_UNLIMITED = 1 << 62


class Usage(NamedTuple):
    """Counters since the group was made. `memory_bytes` leaves out what the kernel would give back at once;
    `memory_limit_bytes` of 0 is none. `pids` counts threads too."""

    cpu_ns: int
    memory_bytes: int
    memory_limit_bytes: int
    read_bytes: int
    written_bytes: int
    pids: int


def usage(v2: str, v1: dict[str, str], pids: Iterable[int]) -> Usage:
    """Of the group in the directory `v2` ("" for none) and in these v1 hierarchies. Files that go meanwhile are 0."""
    members = list(pids)
    memory, limit = _memory(v2, v1, members)
    read, written = _io(v2, v1, members)
    return Usage(_cpu_ns(v2, v1, members), memory, limit, read, written, _tasks(v2, v1, members))


def _cpu_ns(v2: str, v1: dict[str, str], members: list[int]) -> int:
    if v2:  # counted there with or without the controller
        return base.counter(f"{v2}/cpu.stat", "usage_usec") * 1000
    if "cpuacct" in v1:
        return _number(f"{v1['cpuacct']}/cpuacct.usage")
    ticks = sum(sum(map(int, _fields(pid)[11:13])) for pid in members)
    return ticks * 10**9 // os.sysconf("SC_CLK_TCK")


def _fields(pid: int) -> list[str]:
    """proc_pid_stat(5), from the state on."""
    text = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return text or ["0"] * 13


def _memory(v2: str, v1: dict[str, str], members: list[int]) -> tuple[int, int]:
    if "memory" in v1:
        group = v1["memory"]
        used = _number(f"{group}/memory.usage_in_bytes")
        limit = _number(f"{group}/memory.limit_in_bytes")
        spare = base.counter(f"{group}/memory.stat", "total_inactive_file")
        return max(used - spare, 0), limit if limit < _UNLIMITED else 0
    if v2 and os.path.exists(f"{v2}/memory.current"):  # noqa: PTH110 - strings all around
        used = _number(f"{v2}/memory.current")
        return max(used - base.counter(f"{v2}/memory.stat", "inactive_file"), 0), _number(f"{v2}/memory.max")
    return sum(_counter(f"/proc/{pid}/smaps_rollup", "Pss:") * 1024 for pid in members), 0


def _io(v2: str, v1: dict[str, str], members: list[int]) -> tuple[int, int]:
    if "blkio" in v1:
        lines = [line.split() for line in _text(f"{v1['blkio']}/blkio.throttle.io_service_bytes").splitlines()]
        by = {kind: sum(int(line[2]) for line in lines if line[1:2] == [kind]) for kind in ("Read", "Write")}
        return by["Read"], by["Write"]
    if v2 and os.path.exists(f"{v2}/io.stat"):  # noqa: PTH110 - likewise
        words = _text(f"{v2}/io.stat").split()
        return tuple(  # type: ignore[return-value]
            sum(int(word.partition("=")[2]) for word in words if word.startswith(key)) for key in ("rbytes=", "wbytes=")
        )
    paths = [f"/proc/{pid}/io" for pid in members]
    return sum(_counter(path, "read_bytes:") for path in paths), sum(_counter(path, "write_bytes:") for path in paths)


def _tasks(v2: str, v1: dict[str, str], members: list[int]) -> int:
    for group in filter(None, (v1.get("pids", ""), v2)):
        if os.path.exists(f"{group}/pids.current"):  # noqa: PTH110 - likewise
            return _number(f"{group}/pids.current")
    found = 0
    for pid in members:
        with contextlib.suppress(OSError):
            found += len(os.listdir(f"/proc/{pid}/task"))  # noqa: PTH208 - likewise
    return found


def _counter(path: str, name: str) -> int:
    """The number behind `name` in a file of "name  number unit" lines."""
    words = next((line.split() for line in _text(path).splitlines() if line.startswith(name)), [])
    return int(words[1]) if len(words) > 1 else 0


def _number(path: str) -> int:
    """0 for what is not there, and for "max"."""
    text = _text(path).strip()
    return int(text) if text.isdigit() else 0


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
