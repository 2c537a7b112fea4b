"""Stopping, killing, waiting, restarting, removing: docker's rules on real processes."""

import asyncio
import time

import pytest

from agent.container.containers import WaitCondition
from shoal.errors import Conflict, InvalidArgument, NotFound
from shoal.model.container import ContainerState, Mount, RestartCondition, RestartPolicy
from shoal.model.event import EventKind

pytestmark = pytest.mark.kernel

ALWAYS = RestartPolicy(condition=RestartCondition.ANY)
# Ends on SIGTERM as a server does.
POLITE = ("sh", "-c", "trap 'exit 7' TERM USR1; echo ready; while true; do sleep 0.05; done")
DEAF = ("sh", "-c", "trap '' TERM; echo ready; while true; do sleep 0.05; done")


async def ready(engine, *args, **fields):
    """A container that has said that its traps are set."""
    container = await engine.run(*args, start=False, **fields)
    attachment = await engine.containers.visits.attach(container.meta.id, start=True)
    assert await asyncio.wait_for(attachment.read(), 60) == (1, b"ready\n")
    await attachment.close()
    return engine.containers.get(container.meta.id)


async def until(engine, ref, test, seconds=60.0):
    """The container once `test` holds of it."""
    with engine.chronicle.listening() as events:
        while not test(engine.containers.get(ref)):
            await asyncio.wait_for(anext(events), seconds)
    return engine.containers.get(ref)


async def test_stop_asks_first(engine):
    container = await ready(engine, *POLITE)
    stopped = await engine.containers.stop(container.name)
    assert (stopped.status.state, stopped.status.exit_code) == (ContainerState.EXITED, 7)
    assert await engine.containers.stop(container.name) == stopped


async def test_stop_kills_what_does_not_listen(engine):
    container = await ready(engine, *DEAF)
    before = time.monotonic()
    stopped = await engine.containers.stop(container.name, timeout_s=1)
    assert time.monotonic() - before > 0.9
    assert stopped.status.exit_code == 137


async def test_stop_without_patience_kills_at_once(engine):
    container = await ready(engine, *POLITE)
    assert (await engine.containers.stop(container.name, timeout_s=0)).status.exit_code == 137


async def test_stop_sends_the_containers_own_signal(engine):
    container = await ready(engine, *POLITE, stop_signal="USR1")
    assert (await engine.containers.stop(container.name)).status.exit_code == 7


async def test_a_kill_gets_through_while_a_stop_waits(engine):
    container = await ready(engine, *DEAF)
    stopping = asyncio.create_task(engine.containers.stop(container.name, timeout_s=-1))
    await asyncio.sleep(0)
    await engine.containers.kill(container.name)
    assert (await asyncio.wait_for(stopping, 60)).status.exit_code == 137


async def test_kill(engine):
    container = await ready(engine, *POLITE)
    await engine.containers.kill(container.name, "USR1")
    assert (await engine.containers.wait(container.name)).exit_code == 7
    with pytest.raises(
        Conflict, match=f"Cannot kill container: {container.name}: container {container.meta.id} is not running"
    ):
        await engine.containers.kill(container.name)
    with pytest.raises(InvalidArgument, match="Invalid signal: FOO"):
        await engine.containers.kill(container.name, "FOO")


async def test_start_of_a_running_one_is_fine(engine):
    container = await engine.run("sleep", "100")
    assert await engine.containers.start(container.name) == container


async def test_a_running_one_is_not_removed_without_force(engine):
    container = await engine.run("sleep", "100")
    with pytest.raises(Conflict) as refused:
        await engine.containers.remove(container.name)
    assert refused.value.message == (
        f'cannot remove container "{container.name}": container is running:'
        " stop the container before removing or force remove"
    )
    await engine.containers.remove(container.name, force=True)
    with pytest.raises(NotFound, match=f"No such container: {container.name}"):
        engine.containers.get(container.name)


async def test_waiting(engine):
    container = await engine.run("sh", "-c", "read x; exit 4", start=False, open_stdin=True)
    assert (await engine.containers.wait(container.name)).exit_code == 0  # it does not run
    following = asyncio.create_task(engine.containers.wait(container.name, WaitCondition.NEXT_EXIT))
    gone = asyncio.create_task(engine.containers.wait(container.name, WaitCondition.REMOVED))
    attachment = await engine.containers.visits.attach(container.name, start=True, stdin=True)
    stopped = asyncio.create_task(engine.containers.wait(container.name))
    await asyncio.sleep(0)
    assert not stopped.done()
    await attachment.write(b"go\n")
    for each in (following, stopped):
        assert (await asyncio.wait_for(each, 60)).exit_code == 4
    assert not gone.done()
    await attachment.close()
    await engine.containers.remove(container.name)
    assert (await asyncio.wait_for(gone, 60)).exit_code == 4


async def test_one_that_goes_when_it_ends_takes_its_anonymous_volumes(engine):
    await engine.volumes.create("named")
    container = await engine.run(
        "sh",
        "-c",
        "exit 3",
        start=False,
        auto_remove=True,
        mounts=(Mount(target="/a"), Mount(source="named", target="/b")),
    )
    gone = asyncio.create_task(engine.containers.wait(container.name, WaitCondition.REMOVED))
    await asyncio.sleep(0)
    await engine.containers.start(container.name)
    assert (await asyncio.wait_for(gone, 60)).exit_code == 3
    assert engine.containers.find(container.name) is None
    assert [each.name for each in engine.volumes.list()] == ["named"]


async def test_one_that_goes_when_it_ends_goes_when_it_cannot_start(engine):
    with pytest.raises(Exception, match="not found"):
        await engine.run("nothere", auto_remove=True)
    assert await engine.containers.list(all=True) == []


async def test_always_starts_again_until_stopped(engine):
    container = await engine.run("sh", "-c", "echo run; exit 1", restart=ALWAYS)
    again = await until(engine, container.name, lambda each: each.status.restart_count >= 2)
    assert again.restart == ALWAYS
    stopped = await engine.containers.stop(container.name)
    assert stopped.status.state == ContainerState.EXITED
    assert (await engine.containers.wait(container.name)).exit_code == 1
    await engine.containers.remove(container.name)


async def test_on_failure_gives_up(engine):
    policy = RestartPolicy(condition=RestartCondition.ON_FAILURE, max_attempts=2)
    container = await engine.run("false", restart=policy)
    ended = await until(engine, container.name, lambda each: each.status.state == ContainerState.EXITED)
    assert ended.status.restart_count == 2


async def test_a_kill_by_hand_is_not_undone_by_always(engine):
    container = await ready(engine, *DEAF, restart=ALWAYS)
    await engine.containers.kill(container.name)
    assert engine.containers.get(container.name).status.state == ContainerState.EXITED


async def test_a_crash_is_undone_by_always(engine):
    container = await ready(engine, *DEAF, restart=ALWAYS)
    await engine.runtime.signal(container.meta.id, 9)
    again = await until(engine, container.name, lambda each: each.status.pid not in (0, container.status.pid))
    assert again.status.restart_count == 1


async def test_one_that_waits_for_its_restart_can_be_removed_by_force(engine):
    policy = RestartPolicy(condition=RestartCondition.ANY, delay_ns=3600 * 10**9)
    container = await engine.run("false", restart=policy)
    await until(engine, container.name, lambda each: each.status.state == ContainerState.RESTARTING)
    with pytest.raises(Conflict, match="container is restarting"):
        await engine.containers.remove(container.name)
    await engine.containers.remove(container.name, force=True)
    assert await engine.containers.list(all=True) == []


async def test_pause_and_resume(engine):
    container = await ready(engine, *POLITE)
    await engine.containers.pause(container.name)
    assert engine.containers.get(container.name).status.state == ContainerState.PAUSED
    with pytest.raises(Conflict, match="try unpause"):
        await engine.containers.start(container.name)
    await engine.containers.resume(container.name)
    assert engine.containers.get(container.name).status.state == ContainerState.RUNNING
    await engine.containers.pause(container.name)
    assert (await asyncio.wait_for(engine.containers.stop(container.name), 60)).status.exit_code == 7


async def test_events_tell_the_story(engine):
    told = []
    with engine.chronicle.listening() as events:
        container = await engine.run("true")
        await engine.containers.wait(container.name)
        await engine.containers.remove(container.name)
        told = [each.action for each in events.drain() if each.kind is EventKind.CONTAINER]
    assert told == ["create", "start", "die", "destroy"]


async def test_a_caller_that_goes_away_leaves_nothing_half_done(engine):
    for _ in range(5):
        container = await engine.run("true", start=False)
        starting = asyncio.create_task(engine.containers.start(container.name))
        await asyncio.sleep(0.001)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        ending = asyncio.create_task(engine.containers.wait(container.name, WaitCondition.NEXT_EXIT))
        await asyncio.wait_for(ending, 60)
        await engine.containers.remove(container.name)
    assert await engine.runtime.list() == {}
