"""Time of processors for real-time schedulers, which a kernel may keep for groups of v1 (CONFIG_RT_GROUP_SCHED).

A group has none until it is given some, and then no more than its parent has left beside its siblings
(sched-rt-group.rst). `lend` gives the groups above a container what it takes; they keep that for the next one when it
is gone. It is a right and no reserve: time that they do not use is everybody's.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
from fractions import Fraction

from agent.runtime.cgroups import base
from agent.runtime.cgroups.base import Limits
from agent.runtime.failure import Failure

_RUNTIME, _PERIOD = "cpu.rt_runtime_us", "cpu.rt_period_us"


def lend(mount: str, group: str, limits: Limits) -> None:
    """Let the groups between `mount` and `group` have what they need for it to have what `limits` say. Nobody else may
    do so meanwhile, until those are written. Raises Failure where the host has not that much."""
    own = f"{mount}/{group}"
    share = _share(own, limits.realtime_runtime_us, limits.realtime_period_us)
    raised: list[tuple[str, int]] = []
    while (parent := own.rpartition("/")[0]) != mount:
        share += sum(map(_share, _others(parent, own)))
        if share <= _share(parent):
            break
        raised.append((parent, math.ceil(share * _number(f"{parent}/{_PERIOD}"))))
        own = parent
    for path, runtime_us in reversed(raised):
        _give(path, runtime_us)


def give_back(group: str) -> None:
    """What a group has that is about to be removed: the kernel counts it for some time after."""
    with contextlib.suppress(OSError):
        base.write(f"{group}/{_RUNTIME}", "0")


def _give(path: str, runtime_us: int) -> None:
    try:
        base.write(f"{path}/{_RUNTIME}", str(runtime_us))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        above = path.rpartition("/")[0]
        raise Failure(
            "Conflict",
            f"cgroup {path}: this host has not as much real-time as its containers want together "
            f"({runtime_us} us in {_number(f'{path}/{_PERIOD}')})",
            f"want less, or see what there is in {above}/{_RUNTIME}",
        ) from error


def _others(parent: str, own: str) -> list[str]:
    with os.scandir(parent) as entries:
        return [entry.path for entry in entries if entry.is_dir() and entry.path != own]


def _share(group: str, runtime_us: int = 0, period_us: int = 0) -> Fraction:
    """Of the processors' time; what is 0 is as the group has it. A negative runtime is all of it."""
    runtime_us = runtime_us or _number(f"{group}/{_RUNTIME}")
    return Fraction(runtime_us, period_us or _number(f"{group}/{_PERIOD}") or 1) if runtime_us >= 0 else Fraction(1)


def _number(path: str) -> int:
    """0 where there is no such file (any more)."""
    return int(base.text(path) or 0)
