"""Attach, exec, terminals and logs of real containers."""

import asyncio
import signal

import pytest

from agent.container.exec import ExecRequest
from agent.container.launch import Size
from shoal.errors import CommandNotExecutable, CommandNotFound, Conflict, StartFailed
from shoal.model.container import Origin, RestartCondition, RestartPolicy

pytestmark = pytest.mark.kernel


async def collected(streams):
    out = {1: b"", 2: b""}
    while (chunk := await asyncio.wait_for(streams.read(), 60)) is not None:
        out[chunk[0]] += chunk[1]
    return out[1], out[2]


async def read_until(streams, wanted):
    seen = b""
    while wanted not in seen:
        chunk = await asyncio.wait_for(streams.read(), 60)
        assert chunk is not None, seen
        seen += chunk[1]
    return seen


async def test_input_reaches_it_and_its_end_too(engine):
    container = await engine.run("cat", start=False, open_stdin=True)
    attachment = await engine.containers.visits.attach(container.name, stdin=True, start=True)
    await attachment.write(b"one\n")
    await attachment.write(b"two\n")
    await attachment.close_stdin()
    assert await collected(attachment) == (b"one\ntwo\n", b"")
    assert (await attachment.wait()).exit_code == 0
    await attachment.close()


async def test_big_output_is_whole(engine):
    container = await engine.run("sh", "-c", "yes 0123456789 | head -c 5000000", start=False)
    attachment = await engine.containers.visits.attach(container.name, start=True)
    out, _ = await collected(attachment)
    assert len(out) == 5_000_000
    await attachment.close()


async def test_several_clients_see_the_same(engine):
    container = await engine.run("sh", "-c", "read x; echo got $x", start=False, open_stdin=True)
    first = await engine.containers.visits.attach(container.name, stdin=True, start=True)
    second = await engine.containers.visits.attach(container.name)
    await first.write(b"it\n")
    assert await collected(first) == await collected(second) == (b"got it\n", b"")
    await first.close()
    await second.close()


async def test_a_client_that_goes_leaves_it_running(engine):
    container = await engine.run("sleep", "100")
    attachment = await engine.containers.visits.attach(container.name)
    await attachment.close()
    assert engine.containers.get(container.name).status.pid == container.status.pid


@pytest.mark.parametrize(("tty", "stays"), [(False, False), (True, True)])
async def test_a_client_that_was_to_stay_and_is_killed_takes_its_input_with_it(engine, tty, stays):
    """Nobody else would end what it feeds; at a terminal others may attach later."""
    fields = {"open_stdin": True, "tty": tty, "origin": Origin(stdin=True, stdout=True)}
    container = await engine.run("sh", "-c", "cat; exit 4", start=False, **fields)
    attachment = await engine.containers.visits.attach(container.name, stdin=True, start=True)
    await attachment.close()
    if stays:
        assert engine.containers.get(container.name).status.pid
    else:
        assert (await asyncio.wait_for(engine.containers.wait(container.name), 60)).exit_code == 4


async def test_input_of_a_container_that_nobody_stays_with_outlives_its_clients(engine):
    container = await engine.run("sh", "-c", "read x; exit $x", open_stdin=True)
    first = await engine.containers.visits.attach(container.name, stdin=True)
    await first.close()
    second = await engine.containers.visits.attach(container.name, stdin=True)
    await second.write(b"5\n")
    assert (await asyncio.wait_for(second.wait(), 60)).exit_code == 5
    await second.close()


async def test_a_signal_through_an_attachment(engine):
    container = await engine.run("sh", "-c", "trap 'exit 9' INT; echo ready; while :; do sleep 0.05; done", start=False)
    attachment = await engine.containers.visits.attach(container.name, start=True)
    await read_until(attachment, b"ready")
    await attachment.signal(signal.SIGINT)
    assert (await asyncio.wait_for(attachment.wait(), 60)).exit_code == 9
    await attachment.close()


async def test_a_stopped_one_cannot_be_attached_to(engine):
    container = await engine.run("true", start=False)
    with pytest.raises(Conflict, match="You cannot attach to a stopped container, start it first"):
        await engine.containers.visits.attach(container.name)


async def test_a_failed_start_through_attach_says_why(engine):
    container = await engine.run("nothere", start=False)
    with pytest.raises(CommandNotFound):
        await engine.containers.visits.attach(container.name, start=True)


async def test_a_terminal_has_a_size_that_changes(engine):
    script = "tty; stty size; trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 0.05; done"
    container = await engine.run("sh", "-c", script, start=False, tty=True, open_stdin=True)
    attachment = await engine.containers.visits.attach(container.name, stdin=True, start=True, size=Size(24, 80))
    seen = await read_until(attachment, b"ready")
    assert b"/dev/" in seen
    assert b"24 80\r\n" in seen
    await attachment.resize(50, 132)
    assert b"50 132\r\n" in await read_until(attachment, b"132\r\n")
    await attachment.close()


async def test_exec_in_the_same_namespaces_with_its_own_environment(engine):
    container = await engine.run("sleep", "100", env=("A=1",))
    streams = await engine.containers.visits.exec(
        container.name,
        ExecRequest(
            argv=("sh", "-c", "id -u; pwd; echo $A $B $HOME; hostname; exit 6"),
            env=("B=2",),
            user="web",
            workdir="/tmp",
        ),
    )
    out, _ = await collected(streams)
    assert out.decode().splitlines() == [
        "1000",
        "/tmp",
        "1 2 /home/web",
        container.meta.id[:12],
    ]
    assert (await streams.wait()).code == 6
    await streams.close()
    assert engine.containers.get(container.name).status.pid == container.status.pid


async def test_exec_with_input_and_terminal(engine):
    container = await engine.run("sleep", "100")
    streams = await engine.containers.visits.exec(container.name, ExecRequest(argv=("cat",), stdin=True))
    await streams.write(b"hello")
    await streams.close_stdin()
    assert await collected(streams) == (b"hello", b"")
    await streams.close()
    streams = await engine.containers.visits.exec(
        container.name, ExecRequest(argv=("stty", "size"), tty=True, rows=10, columns=20)
    )
    assert await collected(streams) == (b"10 20\r\n", b"")
    await streams.close()


async def test_exec_that_cannot_be(engine):
    container = await engine.run("sleep", "100")
    for argv, kind in ((("nothere",), CommandNotFound), (("/bin/plain",), CommandNotExecutable)):
        with pytest.raises(kind):
            await engine.containers.visits.exec(container.name, ExecRequest(argv=argv))
    with pytest.raises(StartFailed, match="unable to find user ghost"):
        await engine.containers.visits.exec(container.name, ExecRequest(argv=("true",), user="ghost"))
    await engine.containers.pause(container.name)
    with pytest.raises(Conflict, match="unpause the container before exec"):
        await engine.containers.visits.exec(container.name, ExecRequest(argv=("true",)))
    await engine.containers.stop(container.name, timeout_s=0)
    with pytest.raises(Conflict, match=f"Container {container.meta.id} is not running"):
        await engine.containers.visits.exec(container.name, ExecRequest(argv=("true",)))


async def test_exec_privileged_has_more(engine):
    container = await engine.run("sleep", "100", cap_drop=("ALL",))
    masks = []
    for privileged in (False, True):
        streams = await engine.containers.visits.exec(
            container.name, ExecRequest(argv=("grep", "CapEff", "/proc/self/status"), privileged=privileged)
        )
        masks.append(int((await collected(streams))[0].split()[1], 16))
        await streams.close()
    assert masks[0] == 0
    assert masks[1] > 0


async def logged(engine, ref, **more):
    lines = []
    async for batch in engine.containers.survey.logs(ref, **more):
        lines += batch
    return lines


async def test_logs_keep_streams_and_order(engine):
    container = await engine.run("sh", "-c", "for i in 1 2 3; do echo $i; done; echo bad >&2; printf end")
    await engine.containers.wait(container.name)
    lines = await logged(engine, container.name)
    assert [(each.stderr, each.data) for each in lines if not each.stderr] == [
        (False, b"1\n"),
        (False, b"2\n"),
        (False, b"3\n"),
        (False, b"end"),
    ]
    assert [each.data for each in lines if each.stderr] == [b"bad\n"]
    assert [each.data for each in await logged(engine, container.name, tail=2)] == [each.data for each in lines[-2:]]
    assert await logged(engine, container.name, since_ns=lines[-1].at_ns + 1) == []
    assert lines[0].at_ns >= container.status.started_at_ns - 10**9


async def test_following_logs_ends_with_the_container(engine):
    container = await engine.run("sh", "-c", "echo 1; read x; echo 2", start=False, open_stdin=True)
    attachment = await engine.containers.visits.attach(container.name, stdin=True, start=True)
    following = asyncio.create_task(logged(engine, container.name, follow=True))
    await read_until(attachment, b"1")
    assert not following.done()
    await attachment.write(b"\n")
    assert [each.data for each in await asyncio.wait_for(following, 60)] == [b"1\n", b"2\n"]
    await attachment.close()


async def test_following_logs_goes_on_over_restarts_by_policy(engine):
    policy = RestartPolicy(condition=RestartCondition.ON_FAILURE, max_attempts=1)
    container = await engine.run("sh", "-c", "echo run; exit 1", restart=policy)
    lines = await asyncio.wait_for(logged(engine, container.name, follow=True), 60)
    assert [each.data for each in lines] == [b"run\n", b"run\n"]
