"""Finds again what a dead keeper left: running containers by pidfd, their FIFOs and terminals, and exits nobody saw.

Descriptors come from the holder, or, when that died too, from the paths in the record: then a terminal is gone, stdin
is opened anew and the exit code of a container that ended meanwhile cannot be known.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from typing import NamedTuple

from agent.kernel import pidfd as pidfds
from agent.runtime.cgroups.group import Group, Groups
from agent.runtime.failure import Failure
from agent.runtime.plumbing import terminal_streams
from agent.runtime.record import EXITED, RUNNING, UNKNOWN_CODE, ExitRecord, Record, Records, boot_id
from agent.runtime.stdio import Streams


class Adopted(NamedTuple):
    """`pidfd` is -1 for a container that has exited; its record says how."""

    record: Record
    group: Group
    pidfd: int
    streams: Streams


def adopt(records: Records, groups: Groups, held: Mapping[str, int]) -> list[Adopted]:
    """Everything on record. Starts that never finished are undone; what is left over of `held` is closed."""
    boot, left, found = boot_id(), dict(held), list[Adopted]()
    for container, record in records.all():
        if record is None or record.phase not in (RUNNING, EXITED):
            if record is not None:
                with contextlib.suppress(OSError, Failure):
                    where = groups.theirs if record.runtime else groups
                    group = where.find(record.cgroup, _controllers(where, record))
                    group.kill()
                    group.remove()
            records.remove(container)
            continue
        where = groups.theirs if record.runtime else groups
        group = where.find(record.cgroup, (name for name in record.controllers if name in where.layout.v1))
        pidfd = left.pop(f"{container}/pidfd", -1) if record.phase == RUNNING else -1
        if record.phase == RUNNING and pidfd < 0:
            pidfd = _find(record, boot)
        if pidfd < 0:
            if record.phase == RUNNING:
                record = record.with_exit(ExitRecord(UNKNOWN_CODE, False, time.time_ns(), known=False))
                records.save(record)
            found.append(Adopted(record, group, -1, Streams({}, -1, -1)))
            continue
        found.append(Adopted(record, group, pidfd, _streams(records, record, left)))
    for fd in left.values():
        os.close(fd)
    return found


def _controllers(groups: Groups, record: Record) -> list[str]:
    """A start that never finished may have made its group in any hierarchy."""
    return [
        name
        for name in groups.layout.v1
        if os.path.isdir(  # noqa: PTH112 - strings all around
            f"{groups.layout.v1[name].path}/{record.cgroup}"
        )
    ]


def _find(record: Record, boot: str) -> int:
    """A pidfd of the recorded process itself, or -1: a pid alone may be somebody else's by now."""
    if record.boot != boot:
        return -1
    try:
        pidfd = os.pidfd_open(record.pid)
    except ProcessLookupError:
        return -1
    same = record.start_time in (0, pidfds.start_time(record.pid))
    if same and pidfds.inode(pidfd) == record.inode:
        return pidfd
    os.close(pidfd)
    return -1


def _streams(records: Records, record: Record, held: dict[str, int]) -> Streams:
    if record.terminal:
        master = held.pop(f"{record.id}/terminal", -1)
        return terminal_streams(master) if master >= 0 else Streams({}, -1, -1)
    sources: dict[int, int] = {}
    for stream, name in ((1, "stdout"), (2, "stderr")):
        fd = held.pop(f"{record.id}/{name}", -1)
        if fd < 0:
            with contextlib.suppress(FileNotFoundError):
                fd = os.open(records.path(record.id, name), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if fd >= 0:
            sources[fd] = stream
    # Without the holder stdin has seen its end already: opening it again would only pretend.
    return Streams(sources, held.pop(f"{record.id}/stdin", -1), -1)
