"""What is changed of a container that is there: restarted, paused, renamed, given other limits, listed, tidied up."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from agent.container.record import Records
from shoal.errors import Conflict, InvalidArgument, NotFound
from shoal.model.base import Resources
from shoal.model.container import ContainerState, RestartCondition, RestartPolicy
from shoal.model.network import NetworkAttachment, NetworkSpec

pytestmark = pytest.mark.kernel

MIB = 1 << 20
COUNTING = ("sh", "-c", "trap 'exit 7' TERM; while true; do echo x >> /count; sleep 0.01; done")


def group_of(container, file):
    """What a control file says of a container's group, in whichever hierarchy has it."""
    for line in Path(f"/proc/{container.status.pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for mount in (f"/sys/fs/cgroup/{controllers}", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"):
            found = Path(mount + path, file)
            if container.meta.id in path and found.exists():
                return found.read_text().strip()
    raise AssertionError(f"no {file}")


def memory_limit(container):
    try:
        return int(group_of(container, "memory.limit_in_bytes"))
    except AssertionError:
        return int(group_of(container, "memory.max"))


def count(engine, container):
    """How far it is: in a file of its own, where nothing is on its way, as output is."""
    file = engine.paths.containers / container.meta.id / "upper/count"
    return file.stat().st_size if file.exists() else 0


# restart


async def test_a_restart_ends_it_and_starts_it_again(engine):
    before = await engine.run(*COUNTING, name="web")
    after = await engine.containers.restart("web")
    assert after.status.state == ContainerState.RUNNING
    assert after.status.pid != before.status.pid
    assert after.status.restart_count == 0


async def test_a_restart_of_what_does_not_run_starts_it(engine):
    await engine.run("sleep", "100", name="web", start=False)
    assert (await engine.containers.restart("web")).status.pid


async def test_a_restarted_one_stays_even_if_it_goes_when_it_ends(engine):
    await engine.run("sleep", "100", name="web", auto_remove=True)
    assert (await engine.containers.restart("web", timeout_s=0)).status.pid
    await engine.containers.stop("web", timeout_s=0)
    with pytest.raises(NotFound):
        engine.containers.get("web")


async def test_a_restart_that_was_broken_off_before_the_end_is_finished(engine):
    before = await engine.run(*COUNTING, name="web")
    stopping(engine, before.meta.id)
    await engine.restart()
    async with asyncio.timeout(60):
        while engine.containers.get("web").status.pid in (0, before.status.pid):
            await asyncio.sleep(0.01)


async def test_a_restart_that_was_broken_off_after_the_end_is_finished(engine):
    before = await engine.run("sleep", "100", name="web", auto_remove=True)
    stopping(engine, before.meta.id)
    await engine.containers.close()
    await engine.runtime.signal(before.meta.id, 9)
    await engine.runtime.wait(before.meta.id)
    await engine.networks.close()
    await engine.runtime.close()
    await engine.open()
    async with asyncio.timeout(60):
        while engine.containers.get("web").status.pid in (0, before.status.pid):
            await asyncio.sleep(0.01)


def stopping(engine, container_id):
    """As an agent leaves it that dies in the middle of a restart."""
    records = Records(engine.paths.containers)
    state = next(state for record, state in records.load() if record.container.meta.id == container_id)
    records.save_state(container_id, msgspec.structs.replace(state, returning=True), durable=False)


# pause


async def test_a_paused_one_stands_still_and_goes_on(engine):
    container = await engine.run(*COUNTING, name="web")
    await engine.containers.pause("web")
    assert engine.containers.get("web").status.state == ContainerState.PAUSED
    before = count(engine, container)
    await asyncio.sleep(0.1)
    assert count(engine, container) == before
    with pytest.raises(Conflict, match="already paused"):
        await engine.containers.pause("web")
    await engine.containers.resume("web")
    async with asyncio.timeout(60):
        while count(engine, container) <= before:
            await asyncio.sleep(0.01)
    with pytest.raises(Conflict, match="is not paused"):
        await engine.containers.resume("web")


async def test_a_pause_that_was_broken_off_is_as_the_record_says(engine):
    paused = await engine.run("sleep", "100", name="paused")
    frozen = await engine.run("sleep", "100", name="frozen")
    await engine.containers.pause("paused")
    await engine.runtime.resume(paused.meta.id)  # said, and not done
    await engine.runtime.pause(frozen.meta.id)  # done, and taken back
    await engine.restart()
    assert engine.containers.get("paused").status.state == ContainerState.PAUSED
    assert frozen_by_kernel(paused)
    assert not frozen_by_kernel(frozen)
    await engine.containers.stop("paused", timeout_s=5)


def frozen_by_kernel(container):
    return "frozen 1" in group_of(container, "cgroup.events")


# rename


async def test_a_renamed_one_is_found_by_its_new_name_alone(engine):
    await engine.run("sleep", "100", name="web")
    await engine.containers.rename("web", "site")
    assert engine.containers.get("site").name == "site"
    with pytest.raises(NotFound):
        engine.containers.get("web")
    await engine.run("sleep", "100", name="web")
    await engine.restart()
    assert {each.name for each in await engine.containers.list()} == {"web", "site"}


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("other", Conflict, 'The container name "/other" is already in use'),
        ("web", InvalidArgument, "same name as its current name"),
        ("-", InvalidArgument, "Invalid container name"),
        ("", InvalidArgument, "cannot be empty"),
    ],
)
async def test_a_name_that_cannot_be_leaves_the_old_one(engine, name, error, said):
    await engine.run("true", name="web", start=False)
    await engine.run("true", name="other", start=False)
    with pytest.raises(error, match=said):
        await engine.containers.rename("web", name)
    assert engine.containers.get("web").name == "web"


async def test_others_find_a_renamed_one_by_its_new_name(engine):
    await engine.networks.create(NetworkSpec(name="net"))
    net = (NetworkAttachment(network="net"),)
    await engine.run("sleep", "100", name="web", networks=net)
    await engine.containers.rename("web", "site")
    records = Records(engine.paths.containers)
    record, _ = records.load()[0]
    renamed = msgspec.structs.replace(record.container, name="third")  # the network was not told
    assert "site" in names_of(engine)
    assert "web" not in names_of(engine)
    await engine.close()
    records.save(msgspec.structs.replace(record, container=renamed), durable=True)
    await engine.open()
    assert "third" in names_of(engine)
    assert "site" not in names_of(engine)


def names_of(engine):
    zones = [path.read_text() for path in (engine.paths.run / "network").rglob("*.json") if "zones" in path.parts]
    return " ".join(zones)


# update


async def test_limits_of_a_running_one_change_at_once_and_stay(engine):
    container = await engine.run("sleep", "100", name="web")
    await engine.containers.update("web", limits=Resources(memory_bytes=64 * MIB, nano_cpus=500_000_000, pids=50))
    assert memory_limit(container) == 64 * MIB
    assert group_of(container, "pids.max") == "50"
    await engine.containers.update("web", limits=Resources(memory_bytes=128 * MIB, pids=-1))
    assert memory_limit(container) == 128 * MIB
    assert group_of(container, "pids.max") == "max"
    again = await engine.containers.restart("web", timeout_s=0)
    assert memory_limit(again) == 128 * MIB
    assert again.limits == Resources(memory_bytes=128 * MIB, nano_cpus=500_000_000)


async def test_limits_that_cannot_be_leave_the_old_ones(engine):
    await engine.run("sleep", "100", name="web", limits=Resources(memory_bytes=64 * MIB))
    with pytest.raises(InvalidArgument, match="Minimum memory limit"):
        await engine.containers.update("web", limits=Resources(memory_bytes=1))
    assert engine.containers.get("web").limits == Resources(memory_bytes=64 * MIB)


async def test_limits_that_were_written_down_and_not_done_are_done(engine):
    container = await engine.run("sleep", "100", name="web")
    await engine.close()
    records = Records(engine.paths.containers)
    record, _ = records.load()[0]
    wanted = msgspec.structs.replace(record.container, limits=Resources(memory_bytes=32 * MIB))
    records.save(msgspec.structs.replace(record, container=wanted, amending=True), durable=True)
    await engine.open()
    assert memory_limit(container) == 32 * MIB


async def test_a_limit_leaves_nothing_behind(engine):
    container = await engine.run("sleep", "100", name="web")
    await engine.containers.update("web", limits=Resources(memory_bytes=64 * MIB))
    await engine.containers.remove("web", force=True)
    assert list(Path("/sys/fs/cgroup").glob(f"*/{engine.cgroup}/{container.meta.id}")) == []


async def test_a_restart_policy_counts_from_now_on(engine):
    container = await engine.run("sleep", "100", name="web")
    await engine.containers.update("web", restart=RestartPolicy(condition=RestartCondition.ANY))
    await engine.runtime.signal(container.meta.id, 9)
    async with asyncio.timeout(60):
        while engine.containers.get("web").status.pid in (0, container.status.pid):
            await asyncio.sleep(0.01)


# the command line


async def test_commands_print_names_and_refuse_like_docker(engine, shell):
    await engine.run(*COUNTING, name="web")
    for verb, *more in (("restart", "-t", "0"), ("pause",), ("unpause",)):
        ran = await shell(verb, *more, "web")
        assert (ran.code, ran.text, ran.err) == (0, "web\n", "")
    assert await shell("rename", "web", "site") == (0, b"", "")
    assert (await shell("update", "--memory", "64m", "site")).text == "site\n"
    assert memory_limit(engine.containers.get("site")) == 64 * MIB
    refused = await shell("unpause", "site", "nobody")
    assert refused.code == 1
    assert "is not paused" in refused.err
    assert "No such container: nobody" in refused.err
    nothing = await shell("update", "site")
    assert (nothing.code, nothing.err.splitlines()[0]) == (
        1,
        "Error: you must provide one or more flags when using this command",
    )


async def test_top_shows_what_runs_inside_alone(engine, shell):
    container = await engine.run("sh", "-c", "sleep 98 & sleep 99; true", name="web")
    async with asyncio.timeout(60):
        while not {"sleep 98", "sleep 99"} <= await arguments(engine, "web"):
            await asyncio.sleep(0.01)
    ran = await shell("top", "web", "-o", "pid,args")
    title, *rows = ran.text.splitlines()
    assert title.split() == ["PID", "COMMAND"]
    assert sorted(row.split(None, 1)[1] for row in rows)[-2:] == ["sleep 98", "sleep 99"]
    assert str(container.status.pid) in {row.split()[0] for row in rows}
    assert (await shell("top", "web")).text.split()[:8] == "UID PID PPID C STIME TTY TIME CMD".split()
    await engine.containers.stop("web", timeout_s=0)
    stopped = await shell("top", "web")
    assert stopped.code == 1
    assert f"container {container.meta.id} is not running" in stopped.err


async def arguments(engine, ref):
    return {row[1] for row in (await engine.containers.survey.processes(ref, ("-eo", "pid,args"))).rows}


async def test_prune_takes_what_does_not_run(engine, shell):
    await engine.run("sleep", "100", name="runs")
    ended = await engine.run("sh", "-c", "head -c 2000000 /dev/zero > /file", name="ended", labels={"keep": "no"})
    await engine.containers.wait("ended")
    await engine.run("true", name="kept", start=False, labels={"keep": "yes"})
    asked = await shell("container", "prune", input=b"n\n")
    assert asked.code == 0
    assert "This will remove all stopped containers" in asked.text
    ran = await shell("container", "prune", "-f", "--filter", "label!=keep=yes")
    assert ran.text.splitlines()[:2] == ["Deleted Containers:", ended.meta.id]
    assert "Total reclaimed space: 2." in ran.text
    assert {each.name for each in await engine.containers.list(all=True)} == {"runs", "kept"}
    assert (await shell("container", "prune", "-f", "--filter", "until=1h")).text == "Total reclaimed space: 0B\n"
    assert "invalid filter" in (await shell("container", "prune", "-f", "--filter", "odd=1")).err
