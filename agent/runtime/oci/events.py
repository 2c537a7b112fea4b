"""`events`: what a container uses, once or again and again, and each time that the kernel killed in it for want of
memory. One JSON object a line, with runc's names for what is counted here."""

from __future__ import annotations

import json
import os
import re
import select
import time
from collections.abc import Iterator
from typing import Any

from agent.runtime.cgroups.group import Group, Groups
from agent.runtime.failure import Failure
from agent.runtime.oci.arguments import usage as misuse
from agent.runtime.oci.record import STOPPED, Place, group_of, status

DEFAULT_INTERVAL = "5s"
# How long a kill may go unseen. The end of the container is seen at once.
_LOOK_EVERY_S = 1.0
_SPAN = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(text: str) -> float:
    """ "1m30s" as 90. Raises Failure for what is no time, or none at all."""
    spans = _SPAN.findall(text)
    total = sum(float(number) * _SECONDS[unit] for number, unit in spans)
    if "".join(number + unit for number, unit in spans) != text or not total:
        raise misuse(f"--interval is a time such as 5s, not {text!r}")
    return total


def once(place: Place) -> str:
    """What it uses now. Raises Failure where it does not run."""
    group, _ = _running(place)
    return _line("stats", place, _usage(group))


def watched(place: Place, interval_s: float) -> Iterator[str]:
    """Until it ends; what it used last is not told then. Raises Failure where it does not run."""
    group, pid = _running(place)
    process = os.pidfd_open(pid)
    end = select.poll()
    end.register(process, select.POLLIN)
    kills, due = group.oom_kills(), time.monotonic()
    try:
        ended = False
        while not ended:
            if time.monotonic() >= due:
                yield _line("stats", place, _usage(group))
                due += interval_s
            waiting_s = max(min(_LOOK_EVERY_S, due - time.monotonic()), 0)
            ended = bool(end.poll(waiting_s * 1000))
            for _ in range(kills, kills := group.oom_kills()):
                yield _line("oom", place)
    finally:
        os.close(process)


def _running(place: Place) -> tuple[Group, int]:
    record, groups = place.load(), Groups()
    if status(place, record, groups) == STOPPED:
        raise Failure("Conflict", f"container {place.id} is not running")
    return group_of(record, groups), record.pid


def _line(kind: str, place: Place, data: dict[str, Any] | None = None) -> str:
    return json.dumps({"type": kind, "id": place.id, **({"data": data} if data is not None else {})}) + "\n"


def _usage(group: Group) -> dict[str, Any]:
    used = group.usage()
    moved = [{"op": "Read", "value": used.read_bytes}, {"op": "Write", "value": used.written_bytes}]
    return {
        "cpu": {"usage": {"total": used.cpu_ns}},
        "memory": {"usage": {"usage": used.memory_bytes, "limit": used.memory_limit_bytes}},
        "pids": {"current": used.pids},
        "blkio": {"ioServiceBytesRecursive": moved},
    }
