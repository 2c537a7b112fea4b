"""Nothing is left after many cycles: cgroups, files, descriptors, processes."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from agent.runtime.spare import FEW, READY
from shoal.errors import CommandNotFound
from tests.kernel.controllers import where_possible
from tests.kernel.runtime.conftest import host_mounts

pytestmark = pytest.mark.kernel


def descriptors(pid: int) -> int:
    """But for the namespaces that are ready for the next starts."""
    return len(os.listdir(f"/proc/{pid}/fd")) - spare_namespaces(pid)


def spare_namespaces(pid: int) -> int:
    return sum(os.readlink(f"/proc/{pid}/fd/{fd}").startswith("net:") for fd in os.listdir(f"/proc/{pid}/fd"))


async def cycle(box: Any, number: int) -> None:
    name = f"c{number % 4}"
    config = box.config("sh", "-c", "echo x; sleep 0")
    if number % 3 == 0:
        config["linux"]["resources"] = where_possible({"memory": {"limit": 64 << 20}, "pids": {"limit": 50}})
    streams = await box.runtime.attach(name, stdin=True)
    await box.start(config, name=name, tty=number % 2 == 0, stdin=True)
    assert (await streams.wait()).code == 0
    await box.runtime.delete(name)
    await streams.close()


async def test_cycles_leave_nothing(box: Any) -> None:
    await asyncio.gather(*(cycle(box, number) for number in range(4)))  # connections are kept for the next ones
    keeper, holder = box.keeper, box.holder
    await box.until(lambda: spare_namespaces(keeper) >= FEW, "the next namespaces are ready")
    before = descriptors(keeper), descriptors(holder)
    mounts = host_mounts(box)
    for first in range(0, 40, 4):
        await asyncio.gather(*(cycle(box, first + number) for number in range(4)))
        with pytest.raises(CommandNotFound):
            await box.start(box.config("nosuch"), name="bad")
    await box.until(lambda: (descriptors(keeper), descriptors(holder)) == before, "every descriptor is closed")
    assert spare_namespaces(keeper) <= READY
    assert host_mounts(box) == mounts
    assert box.groups() == []
    assert [path.name for path in (box.run_dir / "keeper").iterdir() if path.is_dir()] == []
    children = Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split()
    assert children == [str(holder)]
    assert (box.run_dir / "keeper/keeper.log").read_text() == ""


async def test_the_keeper_stays_small(box: Any) -> None:
    await asyncio.gather(*(box.start(box.config("sleep", "100"), name=f"c{number}") for number in range(20)))
    rollup = Path(f"/proc/{box.keeper}/smaps_rollup").read_text()
    pss_kb = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    assert pss_kb < 25_000
    await asyncio.gather(*(box.runtime.delete(f"c{number}") for number in range(20)))
