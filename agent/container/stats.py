"""Stats: what containers use, sampled as often as somebody wants to see it. Nothing is kept: a rate is the
difference of two samples, and who asks computes it."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from agent.container.held import Held
from agent.container.settle import HOST
from agent.runtime.runtime import Runtime
from shoal.clock import Clock
from shoal.errors import Conflict, NotFound


class Stats(msgspec.Struct, frozen=True):
    """Counters since the container's start; of one that does not run all are 0."""

    id: str
    name: str
    running: bool = False
    at_ns: int = 0
    cpu_ns: int = 0
    memory_bytes: int = 0
    memory_limit_bytes: int = 0
    received_bytes: int = 0
    sent_bytes: int = 0
    read_bytes: int = 0
    written_bytes: int = 0
    pids: int = 0


async def sample(held: Held, runtime: Runtime, clock: Clock) -> Stats:
    """How it is now."""
    if not held.alive:
        return Stats(held.id, held.name)
    try:
        used = await runtime.usage(held.id)
    except (Conflict, NotFound):  # it has just ended
        return Stats(held.id, held.name)
    status, container = held.state.status, held.record.container
    received, sent = (0, 0) if container.networks[0].network == HOST else network_bytes(status.pid)
    return Stats(
        held.id,
        held.name,
        running=True,
        at_ns=clock.now_ns(),
        cpu_ns=used.cpu_ns,
        memory_bytes=used.memory_bytes,
        memory_limit_bytes=used.memory_limit_bytes or host_memory_bytes(),
        received_bytes=received,
        sent_bytes=sent,
        read_bytes=used.read_bytes,
        written_bytes=used.written_bytes,
        pids=used.pids,
    )


def host_memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def network_bytes(pid: int) -> tuple[int, int]:
    """(received, sent) on all interfaces but lo of a process's network (proc_pid_net(5))."""
    try:
        lines = Path(f"/proc/{pid}/net/dev").read_text(encoding="ascii").splitlines()[2:]
    except OSError:
        return 0, 0
    fields = [rest.split() for name, _, rest in (line.partition(":") for line in lines) if name.strip() != "lo"]
    return sum(int(each[0]) for each in fields), sum(int(each[8]) for each in fields)
