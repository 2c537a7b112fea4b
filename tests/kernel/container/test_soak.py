"""Containers that come and go leave the host as it was: mounts, cgroups, links, firewall, descriptors, files.

`make soak` does it ten thousand times.
"""

from __future__ import annotations

import asyncio
import gc
import os
import re
import subprocess
import time
from collections import Counter
from itertools import chain
from pathlib import Path

import pytest

from agent.network.sandbox import READY
from shoal.model.container import ContainerState, Mount
from shoal.model.network import NetworkAttachment, NetworkSpec, Port
from tests.kernel.container.conftest import CGROUP, Engine, keeper_of

pytestmark = pytest.mark.kernel

CYCLES = int(os.environ.get("SHOAL_SOAK", "200"))
AT_ONCE = 4
SETTLED_S = 30.0
STAYING = 1  # containers that run all the while


class Census:
    """What there is on the host that containers could have left."""

    def __init__(self, engine: Engine) -> None:
        gc.collect()  # what other tests threw away
        keeper = keeper_of(engine.paths.run)
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        self.mounts = [line for line in mounts if str(engine.paths.data.parent) in line]
        self.links = _names(_output("ip", "-o", "link"))
        self.firewall = _output("nft", "list", "ruleset")
        tops = [*Path("/sys/fs/cgroup").glob(f"*/{CGROUP}"), Path("/sys/fs/cgroup") / CGROUP]
        self.groups = sorted(folder for top in tops for folder, _, _ in os.walk(top))
        self.children = Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split()
        self.descriptors = {pid: _descriptors(pid) for pid in ("self", str(keeper), *self.children)}
        tops = [engine.paths.data, engine.paths.run]
        self.files = sorted(
            f"{folder}/{name}" for top in tops for folder, *names in os.walk(top) for name in chain(*names)
        )

    def changed(self, before: Census) -> dict[str, tuple[object, object]]:
        """What differs, by name: (before, now)."""
        pairs = {name: (value, getattr(self, name)) for name, value in vars(before).items()}
        found = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
        had = before.descriptors
        more = {pid: has - had.get(pid, Counter()) - _ready(pid) for pid, has in self.descriptors.items()}
        found.pop("descriptors", None)  # of other tests in this process, something may have been let go meanwhile
        if any(more.values()):
            found["descriptors"] = ("no more than before", more)
        return found


def _output(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def _names(links: str) -> list[str]:
    """Of devices; of those that containers have, or will have, only what is too many."""
    names = [line.split()[1] for line in links.splitlines()]
    return sorted(name for name in names if not name.startswith("shv")) + ["shv"] * (
        sum(name.startswith("shv") for name in names) - STAYING - READY
    )


def _descriptors(pid: str) -> Counter[str]:
    """What is open, by kind."""
    found: Counter[str] = Counter()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found[re.sub(r"\d+", "N", str(entry.readlink()))] += 1
        except FileNotFoundError:  # the one by which the folder is read
            continue
    return found


def _ready(pid: str) -> Counter[str]:
    """By how many more there may be: the namespaces that are ready for the next containers, now all and before none.
    Each of the agent's has a socket."""
    return Counter({"net:[N]": READY, "socket:[N]": READY if pid == "self" else 0})


async def cycle(engine: Engine, number: int) -> None:
    """One container from nothing to nothing; which, depends on `number`."""
    name = f"s{number}"
    if number % 4 == 0:
        await engine.run("true", name=name)
        await engine.containers.wait(name)
    elif number % 4 == 1:
        await engine.run("sleep", "1000", name=name, ports=(Port(target=80),), mounts=(Mount(target="/srv/data"),))
        await engine.containers.kill(name, "KILL")
        await engine.containers.wait(name)
    elif number % 4 == 2:
        await engine.run("sleep", "1000", name=name, networks=(NetworkAttachment(network="side"),), tty=True)
    else:
        await engine.run("nosuch", name=name, start=False)
        with pytest.raises(Exception, match="nosuch"):
            await engine.containers.start(name)
    await engine.containers.remove(name, force=True, volumes=True)


async def cycles(engine: Engine, numbers: range) -> None:
    left = iter(numbers)

    async def worker() -> None:
        for number in left:
            await cycle(engine, number)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(worker())


@pytest.mark.timeout(120 + CYCLES)
async def test_containers_leave_the_host_as_it_was(engine: Engine) -> None:
    await engine.networks.create(NetworkSpec(name="side"))
    await engine.run("sleep", "100000", name="stays", ports=(Port(target=80),))
    await cycles(engine, range(4 * AT_ONCE))
    before = await settled(engine)
    await cycles(engine, range(CYCLES))
    deadline = time.monotonic() + SETTLED_S
    while changed := Census(engine).changed(before):
        assert time.monotonic() < deadline, changed
        await asyncio.sleep(0.05)
    assert engine.containers.get("stays").status.state == ContainerState.RUNNING


async def settled(engine: Engine) -> Census:
    """Once nothing changes any more: the trash is emptied, the next namespaces are ready."""
    last = Census(engine)
    while True:
        await asyncio.sleep(1)
        now = Census(engine)
        if not now.changed(last):
            return now
        last = now
