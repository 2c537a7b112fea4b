"""Limits that the kernel keeps, OOM that is reported, pause that stops, a policy that v1 and v2 both enforce."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.runtime.cgroups.base import Layout, Limits, detect
from agent.runtime.cgroups.group import Groups
from shoal.errors import StartFailed, Unsupported
from tests.kernel.controllers import needs

pytestmark = pytest.mark.kernel


@needs("memory")
async def test_memory_limit_kills_and_says_so(box: Any) -> None:
    config = box.config("sh", "-c", "cat /sys/fs/cgroup/memory*/memory.limit_in_bytes; tail -c 200000000 /dev/zero")
    config["linux"]["resources"] = {"memory": {"limit": 32 << 20, "swap": 32 << 20}}
    exit_, _, _ = await box.output(config)
    assert (exit_.code, exit_.oom_killed) == (137, True)
    exit_, out, _ = await box.output(box.config("true"))
    assert (exit_.code, exit_.oom_killed, out) == (0, False, "")


@needs("pids")
async def test_pids_limit(box: Any) -> None:
    config = box.config("sh", "-c", "for i in 1 2 3 4 5 6 7 8; do sleep 100 & done; echo all")
    config["linux"]["resources"] = {"pids": {"limit": 5}}
    exit_, out, err = await box.output(config)
    assert exit_.code != 0
    assert "all" not in out
    assert "fork" in err


@needs("cpu", "cpuset")
async def test_cpu_and_cpuset(box: Any) -> None:
    config = box.config("sh", "-c", "grep Cpus_allowed_list /proc/self/status; sleep 100")
    config["linux"]["resources"] = {"cpu": {"quota": 20000, "period": 100000, "shares": 512, "cpus": "0"}}
    streams = await box.runtime.attach("c")
    await box.start(config)
    piece = await streams.read()
    assert piece is not None
    assert piece[1].split() == [b"Cpus_allowed_list:", b"0"]
    layout = detect()
    if "cpu" in layout.v1:
        group = Path(layout.v1["cpu"].path, box.parent, "c")
        assert (group / "cpu.cfs_quota_us").read_text() == "20000\n"
        assert (group / "cpu.shares").read_text() == "512\n"
    else:
        assert Path(layout.v2, box.parent, "c", "cpu.max").read_text() == "20000 100000\n"


async def test_pause_stops_everything_and_resume_goes_on(box: Any) -> None:
    ticks = box.directory / "data/c/upper/ticks"  # where nothing is on its way, as it is in a pipe
    await box.start(box.config("sh", "-c", "while :; do echo tick >> /ticks; sleep 0.01; done"))
    await box.until(lambda: ticks.exists() and ticks.stat().st_size > 50, "it ticks")
    await box.runtime.pause("c")
    size = ticks.stat().st_size
    await asyncio.sleep(0.15)
    assert ticks.stat().st_size == size
    await box.runtime.resume("c")
    await box.until(lambda: ticks.stat().st_size > size + 50, "it ticks again")
    await box.runtime.pause("c")
    await box.runtime.delete("c")  # a paused container can be killed


async def test_signal_to_all(box: Any) -> None:
    await box.start(box.config("sh", "-c", "trap 'echo one; exit 1' TERM; sleep 100 & while :; do sleep 0.05; done"))
    await box.until(lambda: len(_pids(box)) >= 2, "both run")
    streams = await box.runtime.attach("c")
    await box.runtime.signal("c", 15, all=True)
    assert (await box.drain(streams))[1] == "one\n"


def _pids(box: Any) -> list[int]:
    return Groups().find(f"{box.parent}/c", ()).pids()


async def test_the_policy_of_a_host_without_v2_is_kept_by_v1(box: Any) -> None:
    """The lab's hosts have v1 mounts only."""
    layout = detect()
    if "devices" not in layout.v1:
        pytest.skip("no v1 devices controller here")
    groups = Groups(Layout("", frozenset(), layout.v1))
    group = groups.create(f"{box.parent}/v1only", Limits())
    try:
        allowed = Path(group.v1("devices"), "devices.list").read_text().splitlines()
        assert "c 1:3 rwm" in allowed
        assert "a *:* rwm" not in allowed
        assert group.controllers == ("devices",)
        directory, tasks = group.open()
        assert directory == -1
        assert len(tasks) == 1
        os.close(tasks[0])
        group.freeze()
        group.thaw()
        group.kill()
    finally:
        group.remove()
    assert not Path(group.v1("devices")).exists()
    assert not Path(group.v1("freezer")).exists()


# Nobody else has a turn on its processor.
HOG = "import time; print(flush=True); end = time.monotonic() + 0.3\nwhile time.monotonic() < end: pass"


async def test_what_gets_its_turn_late_is_frozen_by_v1_all_the_same(box: Any) -> None:
    layout = detect()
    *others, last = sorted(os.sched_getaffinity(0))
    if "freezer" not in layout.v1 or not others:
        pytest.skip("no v1 freezer here, or one processor alone")
    group = Groups(Layout("", frozenset(), layout.v1)).create(f"{box.parent}/late", Limits())
    runner = subprocess.Popen(["taskset", "-c", str(last), "sh", "-c", "while :; do :; done"])
    hog = subprocess.Popen(["taskset", "-c", str(last), sys.executable, "-c", HOG], stdout=subprocess.PIPE)
    os.sched_setaffinity(0, others)
    try:
        os.sched_setscheduler(hog.pid, os.SCHED_FIFO, os.sched_param(1))
        for tasks in group.open()[1]:
            os.write(tasks, str(runner.pid).encode())
            os.close(tasks)
        assert hog.stdout is not None
        hog.stdout.readline()
        group.freeze()
        assert Path(group.v1("freezer"), "freezer.state").read_text() == "FROZEN\n"
    finally:
        os.sched_setaffinity(0, [*others, last])
        group.thaw()
        for each in (hog, runner):
            each.kill()
            each.communicate()
        group.remove()


@needs("cpuset")
async def test_a_limit_that_cannot_be_had_is_refused_by_name(box: Any) -> None:
    config = box.config("true")
    config["linux"]["resources"] = {"cpu": {"cpus": "4000"}}
    with pytest.raises(StartFailed, match=r"cpuset\.cpus"):
        await box.start(config)
    assert box.groups() == []
    config["linux"]["resources"] = {"memory": {"kernelTCP": 1 << 20}}
    with pytest.raises(Unsupported, match="kernelTCP"):
        await box.start(config)
