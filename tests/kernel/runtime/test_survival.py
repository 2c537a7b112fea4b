"""kill -9 of whoever holds something: containers go on, logs stay whole, exits stay true, nothing is doubled."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.runtime import launcher
from agent.runtime.run import Exit, Started
from agent.runtime.runtime import Runtime
from shoal.errors import ShoalError, Unavailable

pytestmark = pytest.mark.kernel

# Until it is asked to end: however slowly this host may do what is done meanwhile.
COUNT = "trap 'exit 5' TERM; i=0; while :; do echo $i; i=$((i+1)); sleep 0.005; done"


def logged(path: Path) -> str:
    if not path.exists():
        return ""
    # A reader may come in the middle of a write.
    whole = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return "".join(json.loads(line)["log"] for line in whole)


async def counts(box: Any) -> None:
    """Return once it has counted on."""
    before = len(logged(box.log()))
    await box.until(lambda: len(logged(box.log())) > before + 50, "it counts")


async def end_of_count(box: Any, started: Started) -> Exit:
    """It counts on, and ends as it is asked to; it was logged once whatever it said."""
    await box.runtime.list()  # a keeper is there
    await counts(box)
    os.kill(started.pid, signal.SIGTERM)
    exit_ = await box.runtime.wait("c")
    assert isinstance(exit_, Exit)
    numbers = logged(box.log()).split()
    assert numbers == [str(number) for number in range(len(numbers))]
    return exit_


async def killed(box: Any, pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    await box.ended(pid)


async def test_the_agent_may_die(box: Any) -> None:
    """To the keeper an agent's death is a closed connection."""
    started = await box.start(box.config("sh", "-c", COUNT))
    await counts(box)
    keeper = box.keeper
    await box.runtime.close()
    await box.open()
    assert box.keeper == keeper
    assert await box.runtime.list() == {"c": started}
    assert (await end_of_count(box, started)).code == 5
    await box.runtime.close()
    await box.open()
    assert (await box.runtime.wait("c")).code == 5


async def test_the_next_agent_knows_what_the_one_before_had_ordered(box: Any) -> None:
    """One that was killed did not hear that its containers run, and has no record of some; nobody would end them."""
    names = {f"c{number}" for number in range(8)}
    starting = [asyncio.create_task(box.start(box.config("sleep", "1000"), name=name)) for name in names]
    await asyncio.wait(starting, return_when=asyncio.FIRST_COMPLETED)
    another = await Runtime.open(run_dir=box.run_dir, cgroup_parent=box.parent)
    assert (await another.list()).keys() == names
    await another.close()
    await asyncio.gather(*starting)


async def test_the_keeper_may_die_while_a_container_runs(box: Any) -> None:
    streams = await box.runtime.attach("c")
    started = await box.start(box.config("sh", "-c", COUNT))
    waiting = asyncio.create_task(box.runtime.wait("c"))
    draining = asyncio.create_task(box.drain(streams))
    await counts(box)
    keeper = box.keeper
    await killed(box, keeper)
    assert await box.runtime.list() == {"c": started}
    assert box.keeper != keeper
    exit_ = await end_of_count(box, started)
    assert (exit_.code, exit_.known) == (5, True)
    assert await waiting == (await draining)[0] == exit_


async def test_a_host_that_can_start_no_keeper_now_gets_one_later(box: Any) -> None:
    """Its folder in the way stands for whatever the host lacks: processes, memory, files."""
    started = await box.start(box.config("sleep", "100"))
    running = asyncio.create_task(box.runtime.run())
    state = box.run_dir / "keeper"
    keeper = box.keeper
    os.kill(keeper, signal.SIGSTOP)
    state.rename(box.run_dir / "aside")
    state.write_text("")
    await killed(box, keeper)
    with pytest.raises((Unavailable, TimeoutError)):
        async with asyncio.timeout(3):
            await box.runtime.list()
    assert not running.done()
    state.unlink()
    (box.run_dir / "aside").rename(state)
    assert await box.runtime.list() == {"c": started}
    running.cancel()


async def test_a_keeper_starts_where_a_library_shifts_the_clock(box: Any) -> None:
    """There time.sleep fails: a keeper could not be started, "[Errno 22] Invalid argument"."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    shifted = {"LD_PRELOAD": str(library), "FAKETIME": "+1h", "DONT_FAKE_MONOTONIC": "1"}
    run_dir = box.directory / "shifted"
    code = f"from agent.runtime.launcher import *; launch(Path({str(run_dir)!r}), Path({str(run_dir / 'socket')!r}))"
    rooms = Path(launcher.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=rooms, env={**os.environ, **shifted}, check=False)
    keeper = box.process("agent.runtime.daemon", str(run_dir))
    os.kill(keeper, signal.SIGTERM)
    await box.ended(keeper)
    assert done.returncode == 0


async def test_a_container_that_ends_while_no_keeper_runs(box: Any) -> None:
    """The holder keeps its last words in the FIFO, and its pidfd tells the status."""
    started = await box.start(box.config("sh", "-c", "echo first; read x; printf 'last words'; exit 6"), stdin=True)
    await box.until(lambda: "first" in logged(box.log()), "it runs")
    keeper = box.keeper
    os.kill(keeper, signal.SIGSTOP)
    await box.runtime.close()  # nobody restarts the keeper now
    os.kill(keeper, signal.SIGKILL)
    stdin = os.open(box.run_dir / "keeper/c/stdin", os.O_RDWR | os.O_NONBLOCK)
    os.write(stdin, b"go\n")
    os.close(stdin)
    await box.ended(started.pid)
    await box.open()
    exit_ = await box.runtime.wait("c")
    assert (exit_.code, exit_.known) == (6, True)
    assert logged(box.log()) == "first\nlast words"


async def test_a_terminal_and_an_open_stdin_survive_the_keeper(box: Any) -> None:
    streams = await box.runtime.attach("c", stdin=True)
    await box.start(box.config("sh"), tty=True, stdin=True)
    piped = await box.runtime.attach("piped", stdin=True)
    await box.start(box.config("sh"), name="piped", stdin=True)
    await streams.write(b"echo be''fore\n")
    await piped.write(b"echo before\n")
    await box.until(lambda: "before" in logged(box.log()) and "before" in logged(box.log("piped")), "both answer")
    for _ in range(2):
        await killed(box, box.keeper)
        await box.runtime.list()
    fresh = await box.runtime.attach("c", stdin=True)
    await fresh.write(b"stty size; echo af''ter; exit 3\n")
    assert b"after" in (await box.drain(fresh))[1].encode()
    fresh = await box.runtime.attach("piped", stdin=True)
    await fresh.write(b"echo after; exit 4\n")
    assert (await box.drain(fresh))[1] == "after\n"
    assert (await box.runtime.wait("c")).code == 3
    assert (await box.runtime.wait("piped")).code == 4
    await streams.close()
    await piped.close()


async def test_keeper_and_holder_may_die_together(box: Any) -> None:
    started = await box.start(box.config("sh", "-c", COUNT))
    await counts(box)
    holder, keeper = box.holder, box.keeper
    os.kill(holder, signal.SIGSTOP)
    os.kill(keeper, signal.SIGKILL)
    os.kill(holder, signal.SIGKILL)
    exit_ = await end_of_count(box, started)
    assert (exit_.code, exit_.known) == (5, True)


async def test_every_number_is_logged_once_however_often_keeper_and_holder_are_killed(box: Any) -> None:
    """It counts without a pause, so that a keeper is always at it when it is killed."""
    script = "trap 'echo end; exit 5' TERM; i=0; while :; do echo $i; i=$((i+1)); done"
    await box.start(box.config("sh", "-c", script), log_max_bytes=200_000, log_max_files=1000)
    for turn in range(10):
        await box.runtime.list()  # the next one is there
        await asyncio.sleep(turn * 0.003)  # whenever: any moment will do
        keeper, holder = box.keeper, box.holder
        both = turn % 3 == 2
        if both:
            os.kill(holder, signal.SIGSTOP)
        await killed(box, keeper)
        if both:
            await killed(box, holder)
    await box.runtime.list()
    await box.runtime.signal("c", signal.SIGTERM)
    exit_ = await box.runtime.wait("c")
    assert exit_.code == 5
    parts = sorted(box.directory.glob("c.log*"), key=lambda path: -int(path.suffix.removeprefix(".log")[1:] or 0))
    counted = "".join(map(logged, parts)).split()
    assert counted[-1] == "end"
    assert counted[:-1] == [str(number) for number in range(len(counted) - 1)]
    assert len(counted) > 1000


async def test_the_holder_alone_is_replaced_and_refilled(box: Any) -> None:
    await box.start(box.config("sh"), tty=True, stdin=True)
    first = box.holder
    os.kill(first, signal.SIGKILL)
    await box.until(lambda: _holder(box) not in (0, first), "another holder")
    await box.start(box.config("true"), name="other")  # serialised behind the refill: its descriptors arrived too
    await killed(box, box.keeper)
    streams = await box.runtime.attach("c", stdin=True)
    await streams.write(b"exit 8\n")
    assert (await streams.wait()).code == 8


def _holder(box: Any) -> int:
    try:
        return box.holder
    except (AssertionError, StopIteration):
        return 0


async def test_the_keeper_replaces_its_code_without_losing_anything(box: Any) -> None:
    started = await box.start(box.config("sh", "-c", COUNT))
    await counts(box)
    keeper = box.keeper
    os.kill(keeper, signal.SIGHUP)
    assert (await end_of_count(box, started)).code == 5
    assert box.keeper == keeper


async def test_three_hundred_containers_do_not_notice_that_the_keeper_replaces_its_code(box: Any) -> None:
    """Some end before, some while nobody looks, some after; each has its exit code and every line."""
    names = [f"c{number}" for number in range(300)]

    async def start(number: int) -> Started:
        script = f"trap 'echo after; exit {number % 100}' TERM; echo before; while :; do sleep 1000 & wait; done"
        return await box.start(box.config("sh", "-c", script), name=names[number])

    started: list[Started] = []
    for first in range(0, len(names), 10):
        started += await asyncio.gather(*map(start, range(first, first + 10)))
    await box.until(lambda: all(logged(box.log(name)) == "before\n" for name in names), "all have begun", 150)
    keeper = box.keeper
    for number in range(0, 300, 3):
        os.kill(started[number].pid, signal.SIGTERM)
    os.kill(keeper, signal.SIGHUP)
    for number in range(1, 300, 3):
        os.kill(started[number].pid, signal.SIGTERM)
    assert len(await box.runtime.list()) == 300
    for number in range(2, 300, 3):
        try:
            await box.runtime.signal(names[number], signal.SIGTERM)
        except Unavailable:  # it was asked as the one program went and the other came
            await box.runtime.signal(names[number], signal.SIGTERM)
    exits = [await box.runtime.wait(name) for name in names]
    assert [(exit_.code, exit_.known) for exit_ in exits] == [(number % 100, True) for number in range(300)]
    assert {logged(box.log(name)) for name in names} == {"before\nafter\n"}
    assert box.keeper == keeper


async def test_who_asks_while_the_keeper_dies_is_answered_by_the_next(box: Any) -> None:
    await box.start(box.config("sleep", "100"))

    async def ask() -> None:
        for _ in range(100):
            assert "c" in await box.runtime.list()

    keeper = box.keeper
    async with asyncio.timeout(150), asyncio.TaskGroup() as asking:
        for _ in range(8):
            asking.create_task(ask())
        await box.runtime.list()
        os.kill(keeper, signal.SIGKILL)


async def test_a_pid_that_is_somebody_elses_by_now_is_not_adopted(box: Any) -> None:
    """As after a reboot of a host whose run directory stayed."""
    await box.start(box.config("sleep", "100"))
    await box.runtime.close()
    holder, keeper = box.holder, box.keeper
    for pid in (holder, keeper):
        os.kill(pid, signal.SIGSTOP)
    for pid in (holder, keeper):
        os.kill(pid, signal.SIGKILL)
    path = box.run_dir / "keeper/c/state"
    _, state = path.read_text().split("\n")
    real, changed = json.loads(state)["pid"], {**json.loads(state), "pid": os.getpid()}
    path.write_text(path.read_text() + "\n{torn\n" + json.dumps(changed))
    await box.open()
    known = (await box.runtime.list())["c"]
    assert isinstance(known, Exit)
    assert not known.known
    await box.runtime.delete("c")  # through the cgroup it reaches the real one, and not us
    await box.ended(real)


async def test_a_start_that_was_never_finished_is_undone(box: Any) -> None:
    started = await box.start(box.config("sleep", "100"))
    path = box.run_dir / "keeper/c/state"
    path.write_text(path.read_text().split("\n")[0])
    await killed(box, box.keeper)
    assert await box.runtime.list() == {}
    assert not (box.run_dir / "keeper/c").exists()
    await box.ended(started.pid)
    assert box.groups() == []


async def test_killing_the_keeper_again_and_again_during_starts_leaves_no_orphan(box: Any) -> None:
    async def start(number: int) -> Started | ShoalError:
        try:
            return await box.start(box.config("sleep", "1000"), name=f"c{number}")
        except ShoalError as error:
            return error

    for round_ in range(3):
        starting = [asyncio.create_task(start(round_ * 10 + number)) for number in range(6)]
        await asyncio.wait(starting, return_when=asyncio.FIRST_COMPLETED)
        await killed(box, box.keeper)
        results = await asyncio.gather(*starting)
        assert all(isinstance(result, (Started, Unavailable)) for result in results)
        known = await box.runtime.list()
        pids = {pid for group in box.groups() for pid in _members(group)}
        assert pids == {entry.pid for entry in known.values() if isinstance(entry, Started)}
        for name in known:
            await box.runtime.delete(name)


def _members(group: Path) -> list[int]:
    return [int(word) for word in (group / "cgroup.procs").read_text().split()]


async def test_an_exec_says_that_its_keeper_died(box: Any) -> None:
    await box.start(box.config("sleep", "100"))
    streams = await box.runtime.exec("c", {"args": ["sleep", "100"]}, stdin=False, tty=False)
    await killed(box, box.keeper)
    with pytest.raises(Unavailable, match="the keeper died"):
        await streams.wait()
    assert isinstance((await box.runtime.list())["c"], Started)


async def test_two_agents_that_open_at_once_share_one_keeper(box: Any) -> None:
    await killed(box, box.keeper)
    others = await asyncio.gather(*(Runtime.open(run_dir=box.run_dir, cgroup_parent=box.parent) for _ in range(3)))
    await box.runtime.list()  # until it has found the new one, too
    await box.start(box.config("sleep", "100"))
    for other in others:
        assert list(await other.list()) == ["c"]
        await other.close()
