"""Another process in a running container."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
from pathlib import Path
from typing import Any

import pytest

from agent.runtime.streams import Streams
from shoal.errors import CommandNotExecutable, CommandNotFound, Conflict, NotFound, ShoalError, StartFailed
from tests.kernel.controllers import where_possible

pytestmark = pytest.mark.kernel


async def run(box: Any, *args: str, **process: Any) -> tuple[int, str, str]:
    streams = await box.runtime.exec("c", {"args": list(args), **process}, stdin=False, tty=False)
    exit_, out, err = await box.drain(streams)
    return exit_.code, out, err


def sockets() -> set[str]:
    """What this process has open, by inode."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.add(os.readlink(f"/proc/self/fd/{fd}"))
    return {each for each in found if each.startswith("socket:")}


async def test_it_is_in_the_same_namespaces_cgroup_and_filter(box: Any) -> None:
    config = box.config("sleep", "100", env=["PATH=/bin", "MARK=1"], cwd="/tmp")
    config["linux"]["resources"] = where_possible({"memory": {"limit": 64 << 20}})
    started = await box.start(config)
    for kind in ("pid", "mnt", "uts", "ipc", "net", "cgroup"):
        theirs = os.readlink(f"/proc/{started.pid}/ns/{kind}")
        assert await run(box, "readlink", f"/proc/self/ns/{kind}") == (0, theirs + "\n", "")
    code, out, _ = await run(box, "sh", "-c", "grep -E 'CapEff|CapInh|Seccomp:' /proc/self/status; echo $MARK $PWD")
    assert code == 0
    assert out.split() == ["CapInh:", "0" * 16, "CapEff:", "00000000a80425fb", "Seccomp:", "2", "1", "/tmp"]
    streams = await box.runtime.exec("c", {"args": ["sleep", "100"]}, stdin=False, tty=False)
    ours, theirs = (Path(f"/proc/{pid}/cgroup").read_text() for pid in (streams.pid, started.pid))
    assert ours == theirs
    await streams.signal(15)
    assert (await streams.wait()).code == 143


async def test_streams_are_apart_input_ends_and_the_status_comes_back(box: Any) -> None:
    await box.start(box.config("sleep", "100"))
    streams = await box.runtime.exec("c", {"args": ["sh", "-c", "cat; echo err >&2; exit 9"]}, stdin=True, tty=False)
    await streams.write(b"in\n")
    await streams.close_stdin()
    exit_, out, err = await box.drain(streams)
    assert (exit_.code, out, err) == (9, "in\n", "err\n")


async def test_a_terminal_of_its_own(box: Any) -> None:
    await box.start(box.config("sleep", "100"))
    streams = await box.runtime.exec(
        "c", {"args": ["sh", "-c", "tty; stty size"]}, stdin=True, tty=True, rows=9, columns=8
    )
    assert (await box.drain(streams))[1] == "/dev/pts/0\r\n9 8\r\n"


async def test_another_user_directory_and_environment(box: Any) -> None:
    await box.start(box.config("sleep", "100"))
    code, out, _ = await run(
        box,
        "sh",
        "-c",
        "id -u; id -G; pwd; echo $X",
        user={"uid": 7, "gid": 8, "additionalGids": [9]},
        cwd="/etc",
        env=["X=y", "PATH=/bin"],
    )
    assert (code, out) == (0, "7\n8 9\n/etc\ny\n")


async def test_errors(box: Any) -> None:
    with pytest.raises(NotFound):
        await run(box, "true")
    await box.start(box.config("sleep", "100"))
    with pytest.raises(CommandNotFound, match="executable file not found"):
        await run(box, "nosuch")
    with pytest.raises(CommandNotExecutable, match="permission denied"):
        await run(box, "/etc")
    for cwd in ("/nosuch", "/proc/self/fd/8", "/proc/1/fd/1"):
        with pytest.raises(StartFailed, match="working directory"):
            await run(box, "true", cwd=cwd)
    await box.runtime.signal("c", 9)
    await box.runtime.wait("c")
    with pytest.raises(Conflict, match="not running"):
        await run(box, "true")


async def test_what_the_keeper_cannot_do_is_answered(box: Any) -> None:
    await box.start(box.config("sleep", "100"))
    for op in ("exec", "attach"):
        async with asyncio.timeout(30):
            with pytest.raises(ShoalError, match=r"^keeper: KeyError: 'stdin'"):
                await Streams.open(box.runtime._line, {"op": op, "id": "c"})
    assert await run(box, "true") == (0, "", "")


async def test_it_dies_with_its_container(box: Any) -> None:
    await box.start(box.config("sleep", "100"))
    streams = await box.runtime.exec("c", {"args": ["sleep", "100"]}, stdin=False, tty=False)
    await box.runtime.delete("c")
    assert (await streams.wait()).code == 137


async def test_it_goes_on_when_nobody_is_attached_any_more(box: Any) -> None:
    await box.start(box.config("sleep", "100"))
    streams = await box.runtime.exec(
        "c", {"args": ["sh", "-c", "sleep 0.2; seq 1 100000; touch /done"]}, stdin=False, tty=False
    )
    await streams.close()
    made = box.directory / "data/c/upper/done"
    await box.until(made.exists, "the command finishes without a reader")


async def test_a_child_that_keeps_the_output_open_does_not_hold_the_exit_back(box: Any) -> None:
    await box.start(box.config("sleep", "100"))
    code, out, _ = await asyncio.wait_for(run(box, "sh", "-c", "sleep 50 & echo x"), 60)
    assert (code, out) == (0, "x\n")


async def test_the_next_one_is_on_the_connection_of_the_one_before_unless_that_had_input(box: Any) -> None:
    await box.start(box.config("sleep", "100"))
    await run(box, "true")
    before = sockets()
    for _ in range(3):
        assert await run(box, "sh", "-c", "echo out; echo err >&2; exit 3") == (3, "out\n", "err\n")
        assert sockets() == before
    streams = await box.runtime.exec("c", {"args": ["cat"]}, stdin=True, tty=False)
    await streams.close_stdin()
    await box.drain(streams)
    await box.runtime.list()  # a turn of the loop, in which what was closed is closed
    assert not sockets() - before
    assert before - sockets()
    assert await run(box, "echo", "again") == (0, "again\n", "")


async def test_a_connection_that_ended_meanwhile_is_not_used(box: Any) -> None:
    await box.start(box.config("sleep", "100"))
    await run(box, "true")
    keeper = os.pidfd_open(box.keeper)
    try:
        signal.pidfd_send_signal(keeper, signal.SIGKILL)
        assert select.select([keeper], [], [], 30)[0]  # the loop, which has not turned, knows of nothing
    finally:
        os.close(keeper)
    assert await run(box, "echo", "still") == (0, "still\n", "")


async def test_many_at_once(box: Any) -> None:
    await box.start(box.config("sleep", "100"))
    done = await asyncio.gather(*(run(box, "echo", str(number)) for number in range(30)))
    assert [out for _, out, _ in done] == [f"{number}\n" for number in range(30)]
