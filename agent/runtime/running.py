"""Running: what a start or an exec has come to, for the keeper to take over, and how it ends.

The descriptors are the keeper's own then.
"""

from __future__ import annotations

import os
import time
from typing import NamedTuple

from agent.kernel import pidfd as pidfds
from agent.runtime.cgroups.group import Group
from agent.runtime.record import RUNNING, UNKNOWN_CODE, ExitRecord, Record
from agent.runtime.stdio import Streams


class Running(NamedTuple):
    record: Record
    pidfd: int
    group: Group
    streams: Streams


class Executed(NamedTuple):
    pid: int
    pidfd: int
    streams: Streams


def recorded(record: Record, pid: int, pidfd: int, *, inodes_tell: bool) -> Record:
    """`record` of a container whose process has begun. `inodes_tell`: as `pidfds.inodes_tell`."""
    return record._replace(
        phase=RUNNING,
        pid=pid,
        start_time=0 if inodes_tell else pidfds.start_time(pid),
        inode=pidfds.inode(pidfd),
        started_at_ns=time.time_ns(),
    )


def exit_of(status: int | None, *, oom_killed: bool) -> ExitRecord:
    """A wait status as docker counts: 128 + n for signal n."""
    if status is None:
        return ExitRecord(UNKNOWN_CODE, oom_killed, time.time_ns(), known=False)
    code = os.waitstatus_to_exitcode(status & ~0x80)
    return ExitRecord(code if code >= 0 else 128 - code, oom_killed, time.time_ns())
