"""How the kernel of this host is told to share devices and processors among containers."""

import asyncio
import contextlib
import os
import subprocess
from pathlib import Path

import pytest

from shoal.errors import Conflict, StartFailed
from shoal.model.container import DeviceWeight, Tuning

pytestmark = pytest.mark.kernel

GROUPS = Path("/sys/fs/cgroup")


def told(engine, container, file):
    """What a control file of v1 says of it."""
    return (GROUPS / file.partition(".")[0] / engine.cgroup / container.meta.id / file).read_text().split("\n")[:-1]


# devices


@pytest.fixture
def disk(tmp_path):
    """A block device that the BFQ scheduler serves, with its number."""
    file = tmp_path / "disk"
    file.write_bytes(bytes(1 << 20))
    if not (GROUPS / "blkio/blkio.bfq.io_serviced").exists():
        pytest.skip("no BFQ scheduler with groups of v1 here")
    made = subprocess.run(["losetup", "-f", "--show", file], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no loop device here: {made.stderr}")
    path = made.stdout.strip()
    about = Path("/sys/block", Path(path).name)
    before = about.joinpath("queue/scheduler").read_text().partition("[")[2].partition("]")[0]
    try:
        about.joinpath("queue/scheduler").write_text("bfq")
        yield path, about.joinpath("dev").read_text().strip()
    finally:
        with contextlib.suppress(OSError):
            about.joinpath("queue/scheduler").write_text(before)
        subprocess.run(["losetup", "-d", path], check=True)


async def test_a_device_has_a_weight_of_its_own(engine, shell, disk):
    path, number = disk
    weights = ("--blkio-weight", "300", "--blkio-weight-device", f"{path}:200")
    assert (await shell("run", "-d", "--name", "web", *weights, "busybox", "sleep", "100")).code == 0
    container = engine.containers.get("web")
    assert told(engine, container, "blkio.bfq.weight_device") == ["default 300", f"{number} 200"]
    await engine.containers.update("web", tuning=Tuning(io_weight=400))
    assert told(engine, container, "blkio.bfq.weight_device") == ["default 400", f"{number} 200"]
    seen = await shell("inspect", "-f", "{{json .HostConfig.BlkioWeightDevice}}", "web")
    assert seen.text == f'[{{"Path":"{path}","Weight":200}}]\n'


@pytest.mark.parametrize(("path", "words"), [("/dev/null", "not a block device"), ("/dev/nosuch", "no such file")])
async def test_only_a_device_of_blocks_has_a_weight(engine, path, words):
    with pytest.raises(StartFailed, match=words):
        await engine.run("true", tuning=Tuning(device_weights=(DeviceWeight(path, 200),)))


# processors


FIFO = os.sched_param(1)
realtime = pytest.mark.skipif(
    not (GROUPS / "cpu/cpu.rt_runtime_us").exists(), reason="no CONFIG_RT_GROUP_SCHED with v1 here"
)


@realtime
async def test_a_container_has_time_for_real_time(engine, shell):
    time = ("--cpu-rt-period", "100000", "--cpu-rt-runtime", "5000")
    assert (await shell("run", "-d", "--name", "web", *time, "busybox", "sleep", "100")).code == 0
    container = engine.containers.get("web")
    assert told(engine, container, "cpu.rt_period_us") == ["100000"]
    assert told(engine, container, "cpu.rt_runtime_us") == ["5000"]
    os.sched_setscheduler(container.status.pid, os.SCHED_FIFO, FIFO)
    seen = await shell("inspect", "-f", "{{.HostConfig.CpuRealtimePeriod}} {{.HostConfig.CpuRealtimeRuntime}}", "web")
    assert seen.text == "100000 5000\n"
    assert (await shell("update", "--cpu-rt-runtime", "2000", "--cpu-rt-period", "10000", "web")).code == 0
    assert told(engine, container, "cpu.rt_runtime_us") == ["2000"]
    await engine.containers.stop("web", timeout_s=0)
    again = await engine.containers.start("web")
    assert told(engine, again, "cpu.rt_period_us") == ["10000"]


@realtime
async def test_many_at_once_have_it_next_to_who_has_none(engine):
    tuning = Tuning(cpu_realtime_runtime_us=30_000)
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(engine.run("sleep", "100", name=f"c{n}", tuning=tuning)) for n in range(8)]
    for each in running:
        os.sched_setscheduler(each.result().status.pid, os.SCHED_FIFO, FIFO)
    other = await engine.run("sleep", "100", tuning=Tuning(cpu_shares=512))
    with pytest.raises(PermissionError):
        os.sched_setscheduler(other.status.pid, os.SCHED_FIFO, FIFO)


@realtime
async def test_more_time_than_there_is_is_refused(engine):
    with pytest.raises(Conflict, match="not as much real-time"):
        await engine.run("sleep", "100", name="web", tuning=Tuning(cpu_realtime_runtime_us=990_000))
    await engine.containers.remove("web")
    await engine.run("sleep", "100", name="web", tuning=Tuning(cpu_realtime_runtime_us=10_000))
    with pytest.raises(Conflict, match="not as much real-time"):
        await engine.containers.update("web", tuning=Tuning(cpu_realtime_runtime_us=990_000))
    assert engine.containers.get("web").tuning.cpu_realtime_runtime_us == 10_000
