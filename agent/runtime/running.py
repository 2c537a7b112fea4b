"""Running: what a start or an exec has come to, for the keeper to take over: the descriptors are its own then."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import NamedTuple

from agent.kernel import pidfd as pidfds
from agent.runtime.cgroups.group import Group
from agent.runtime.record import RUNNING, Record
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
    return replace(
        record,
        phase=RUNNING,
        pid=pid,
        start_time=0 if inodes_tell else pidfds.start_time(pid),
        inode=pidfds.inode(pidfd),
        started_at_ns=time.time_ns(),
    )
