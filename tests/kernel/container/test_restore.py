"""An agent that dies at any moment: the next one finds what runs, finishes or undoes the rest, doubles nothing."""

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from agent.container import restore
from agent.container.record import Records
from shoal.errors import Conflict, NotFound
from shoal.model.container import ContainerState, Mount, RestartCondition, RestartPolicy
from shoal.model.network import Port

pytestmark = pytest.mark.kernel

ALWAYS = RestartPolicy(condition=RestartCondition.ANY)
ROOMS = Path(restore.__file__).parents[2]


async def until(engine, ref, test, seconds=60.0):
    with engine.chronicle.listening() as events:
        while not test(engine.containers.get(ref)):
            await asyncio.wait_for(anext(events), seconds)
    return engine.containers.get(ref)


def another_boot(engine):
    """As after the power went: nothing runs, and what was started was in another boot."""
    records = Records(engine.paths.containers)
    for record, state in records.load():
        changed = msgspec.structs.replace(state, boot_id="another" if state.boot_id else "")
        records.save_state(record.container.meta.id, changed, durable=False)


async def test_what_runs_is_adopted_as_it_is(engine):
    container = await engine.run("sh", "-c", "read x; exit 4", ports=(Port(target=80),), open_stdin=True, name="web")
    await engine.restart()
    assert engine.containers.get("web") == container
    attachment = await engine.containers.visits.attach("web", stdin=True)
    await attachment.write(b"\n")
    assert (await asyncio.wait_for(attachment.wait(), 60)).exit_code == 4
    await attachment.close()
    assert engine.containers.get("web").status.addresses == ()


async def test_an_exit_while_nobody_looked_is_settled(engine):
    container = await engine.run("sleep", "100")
    await engine.containers.close()
    await engine.runtime.signal(container.meta.id, 9)
    await engine.runtime.wait(container.meta.id)
    await engine.networks.close()
    await engine.runtime.close()
    await engine.open()
    ended = await until(engine, container.name, lambda each: each.status.state == ContainerState.EXITED)
    assert ended.status.exit_code == 137
    async with asyncio.timeout(60):
        while await engine.runtime.list():  # forgotten after it was told
            await asyncio.sleep(0.01)
    await engine.containers.start(container.name)


async def test_an_exit_while_nobody_looked_is_undone_by_policy(engine):
    container = await engine.run("sleep", "100", restart=ALWAYS)
    await engine.containers.close()
    await engine.runtime.signal(container.meta.id, 9)
    await engine.runtime.wait(container.meta.id)
    await engine.networks.close()
    await engine.runtime.close()
    await engine.open()
    again = await until(engine, container.name, lambda each: each.status.pid not in (0, container.status.pid))
    assert again.status.restart_count == 1


async def test_one_that_goes_when_it_ends_goes_after_a_restart_too(engine):
    container = await engine.run("sleep", "100", auto_remove=True, mounts=(Mount(target="/d"),))
    await engine.restart()
    assert engine.containers.get(container.name) == container
    await engine.containers.kill(container.name)
    assert engine.containers.find(container.name) is None
    assert engine.volumes.list() == []


async def test_after_a_boot_policies_decide(engine):
    names = {}
    for name, policy in (
        ("no", RestartPolicy()),
        ("always", ALWAYS),
        ("unless", RestartPolicy(condition=RestartCondition.UNLESS_STOPPED)),
        ("stopped", RestartPolicy(condition=RestartCondition.UNLESS_STOPPED)),
        ("passing", RestartPolicy()),
        ("never-started", ALWAYS),
    ):
        names[name] = await engine.run(
            "sleep", "100", name=name, restart=policy, auto_remove=name == "passing", start=name != "never-started"
        )
    await engine.containers.stop("stopped", timeout_s=0)
    await engine.containers.close()
    for each in await engine.runtime.list():
        await engine.runtime.delete(each)
    another_boot(engine)
    await engine.networks.close()
    await engine.runtime.close()
    await engine.open()
    for name in ("always", "unless"):
        await until(engine, name, lambda each: each.status.state == ContainerState.RUNNING)
    await until(engine, "no", lambda each: each.status.state == ContainerState.EXITED)
    assert engine.containers.get("no").status.exit_code == 255
    assert engine.containers.get("stopped").status.state == ContainerState.EXITED
    assert engine.containers.get("never-started").status.state == ContainerState.CREATED
    async with asyncio.timeout(60):
        while engine.containers.find("passing"):
            await asyncio.sleep(0.01)


async def test_a_tasks_layer_is_kept_in_one_boot_and_starts_empty_in_the_next(engine):
    """It is mounted without syncs: after the power went it may be torn."""
    await engine.run("mkdir", "/new", task_id="t1", name="task")
    assert (await engine.containers.wait("task")).exit_code == 0
    await engine.containers.start("task")
    assert (await engine.containers.wait("task")).exit_code == 1
    await engine.containers.close()
    another_boot(engine)
    await engine.networks.close()
    await engine.runtime.close()
    await engine.open()
    await engine.containers.start("task")
    assert (await engine.containers.wait("task")).exit_code == 0


async def test_orphans_of_every_kind_are_swept(engine):
    """A container that only the runtime knows, a folder without record, one whose volumes were being made."""
    lost = await engine.run("sleep", "100", name="lost")
    half = await engine.run("true", name="half", start=False, mounts=(Mount(target="/d"),))
    await engine.containers.close()
    folder = engine.paths.containers
    (folder / lost.meta.id).rename(folder / ".trash" / "x")
    (folder / ("e" * 64) / "upper").mkdir(parents=True)
    records = Records(folder)
    ((record, _),) = [each for each in records.load() if each[0].container.meta.id == half.meta.id]
    records.save(msgspec.structs.replace(record, pending=True), durable=True)
    await engine.networks.close()
    await engine.runtime.close()
    await engine.open()
    assert await engine.containers.list(all=True) == []
    assert await engine.runtime.list() == {}
    assert engine.volumes.list() == []
    assert sorted(each.name for each in folder.iterdir()) == [".base", ".trash"]
    assert not Path(f"/proc/{lost.status.pid}").exists()


async def test_killed_at_any_moment(engine):
    """Another process makes, starts, stops and removes containers until it is killed; every time what it leaves
    is whole: each container is known, found by its name, startable; nothing runs that nobody knows."""
    await engine.close()
    program = [sys.executable, str(Path(__file__).with_name("churn.py")), str(engine.paths.data), str(engine.paths.run)]
    environment = {**os.environ, "PYTHONPATH": str(ROOMS)}
    chance = random.Random(7)
    for _ in range(6):
        churn = subprocess.Popen([*program, engine.cgroup], env=environment, stdout=subprocess.PIPE)
        assert churn.stdout is not None
        await asyncio.to_thread(churn.stdout.readline)
        await asyncio.sleep(chance.uniform(0.05, 0.6))
        churn.send_signal(signal.SIGKILL)
        churn.wait()
        churn.stdout.close()
        await engine.open()
        await check_whole(engine)
        await engine.close()
    await engine.open()


async def check_whole(engine):
    """What ended while nobody looked is restarted or removed in a moment; then everything agrees."""
    try:
        async with asyncio.timeout(60):
            while await disagreement(engine):
                await asyncio.sleep(0.01)
    except TimeoutError:
        assert await disagreement(engine) == []
    containers = await engine.containers.list(all=True)
    runs = {each.meta.id for each in await engine.containers.list()}
    for each in containers:
        # One that goes when it ends may have ended just now.
        with contextlib.suppress(*((NotFound, Conflict) if each.auto_remove else ())):
            if each.meta.id not in runs:
                await engine.containers.start(each.name)
            await engine.containers.remove(each.name, force=True, volumes=True)
    assert await engine.runtime.list() == {}
    assert engine.volumes.list() == []


async def disagreement(engine):
    containers = await engine.containers.list(all=True)
    ids = {each.meta.id for each in containers}
    runs = {each.meta.id for each in containers if each.status.pid}
    folders = {each.name for each in engine.paths.containers.iterdir() if not each.name.startswith(".")}
    used = {mount.source for each in containers for mount in each.mounts}
    volumes = {each.name for each in engine.volumes.list()}
    known = set(await engine.runtime.list())
    found = []
    if folders != ids:
        found.append(f"folders {folders ^ ids}")
    if known != runs:
        found.append(f"runtime {known ^ runs}")
    if volumes - used:
        found.append(f"volumes of nobody {volumes - used}")
    if len({each.name for each in containers}) != len(containers):
        found.append("a name twice")
    return found
