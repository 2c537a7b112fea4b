"""What containers use, as `stats` shows it."""

import asyncio
import json

import pytest

from agent.container.exec import ExecRequest
from shoal.model.base import Resources

pytestmark = pytest.mark.kernel

MIB = 1 << 20
BUSY = ("sh", "-c", "x=0; while true; do x=$((x+1)); done")


async def batches(engine, count, *refs, **wanted):
    found = []
    async for batch in engine.containers.survey.stats(refs, **wanted):
        found.append(batch)
        if len(found) == count:
            return found
    raise AssertionError


async def test_work_shows_and_idleness_too(engine):
    await engine.run(*BUSY, name="busy")
    await engine.run("sleep", "100", name="idle", limits=Resources(memory_bytes=64 * MIB, pids=10))
    before, after = ({each.name: each for each in batch} for batch in await batches(engine, 2))
    used = {name: after[name].cpu_ns - before[name].cpu_ns for name in after}
    assert used["busy"] > 10_000_000
    assert used["idle"] < used["busy"] / 2
    idle = after["idle"]
    assert idle.memory_limit_bytes == 64 * MIB
    assert 0 < idle.memory_bytes < 32 * MIB
    assert idle.pids == 1
    assert after["busy"].memory_limit_bytes > 64 * MIB


async def test_traffic_is_counted(engine):
    container = await engine.run("sleep", "100", name="web")
    [[before]] = await batches(engine, 1, "web")
    gateway = container.status.addresses[0].gateway
    talk = ExecRequest(argv=("nc", gateway, "9"))  # refused, and its packets are counted all the same
    talking = await engine.containers.visits.exec("web", talk)
    await talking.wait()
    await talking.close()
    async with asyncio.timeout(60):
        async for [after] in engine.containers.survey.stats(["web"]):
            if min(after.sent_bytes - before.sent_bytes, after.received_bytes - before.received_bytes) > 50:
                break
    assert after.running


async def test_one_that_does_not_run_uses_nothing(engine):
    await engine.run("true", name="ended", start=False)
    assert await batches(engine, 1) == [[]]
    [[found]] = await batches(engine, 1, all=True)
    assert (found.name, found.running, found.memory_bytes, found.pids) == ("ended", False, 0, 0)
    following = engine.containers.survey.stats(["ended"])
    await anext(following)
    await engine.containers.remove("ended")
    assert await anext(following) == []


async def test_stats_on_the_command_line(engine, shell):
    await engine.run(*BUSY, name="busy")
    await engine.run("true", name="ended", start=False)
    ran = await shell("stats", "--no-stream")
    title, row = ran.text.splitlines()
    assert title.split("  ")[0] == "CONTAINER ID"
    assert [each.strip() for each in title.split("  ") if each.strip()][1:] == [
        "NAME",
        "CPU %",
        "MEM USAGE / LIMIT",
        "MEM %",
        "NET I/O",
        "BLOCK I/O",
        "PIDS",
    ]
    assert "busy" in row
    shown = await shell("stats", "--no-stream", "--format", "json", "busy", "ended")
    ended, busy = (json.loads(line) for line in shown.text.splitlines())
    assert float(busy["CPUPerc"].removesuffix("%")) > 1
    assert busy["PIDs"] == "1"
    assert (ended["CPUPerc"], ended["MemUsage"], ended["NetIO"]) == ("0.00%", "0B / 0B", "0B / 0B")
    missing = await shell("stats", "--no-stream", "nobody")
    assert missing.code == 1
    assert "No such container: nobody" in missing.err


async def test_stats_go_on_until_they_are_ended(engine, shell):
    await engine.run("sleep", "100", name="web")
    process = await shell.start("stats", "--format", "{{.Name}}")
    for _ in range(2):
        assert await asyncio.wait_for(process.stdout.readline(), 60) == b"web\n"
    process.kill()
    await process.wait()
