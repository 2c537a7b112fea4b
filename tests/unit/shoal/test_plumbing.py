"""The plumbing that knows no noun: time, waiting, supervision, events, files, names, ids."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shoal import command, ids, names
from shoal.backoff import Backoff
from shoal.broadcast import Broadcast, Lagged
from shoal.clock import ManualClock
from shoal.errors import Conflict, InvalidArgument, NotFound, ShoalError
from shoal.files import read_optional, write_atomic
from shoal.settings import host_port
from shoal.tasks import Group, Lasting


async def test_manual_clock_wakes_sleepers_in_order() -> None:
    clock, woken = ManualClock(), []

    async def sleeper(seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((seconds, clock.monotonic()))

    sleepers = [asyncio.create_task(sleeper(s)) for s in (3, 1, 2)]
    start_ns = clock.now_ns()
    await clock.advance(2.5)
    assert woken == [(1, 1), (2, 2)]
    assert clock.now_ns() - start_ns == 2_500_000_000
    await clock.advance(1)
    await asyncio.gather(*sleepers)
    assert woken[-1] == (3, 3)


def test_backoff_doubles_to_its_cap_and_starts_over() -> None:
    backoff = Backoff(1, 8, chance=lambda: 1.0)
    assert [backoff.next() for _ in range(6)] == [1, 2, 4, 8, 8, 8]
    backoff.reset()
    assert backoff.next() == 1
    backoff.widen(20)
    assert [backoff.next() for _ in range(2)] == [20, 20]
    backoff.reset()
    backoff.widen(0)
    assert backoff.next() == 1


async def test_group_is_taken_down_by_an_eternal_task_that_ends() -> None:
    async def ends() -> None:
        return

    with pytest.raises(ExceptionGroup) as raised:
        async with Group() as group:
            group.start("the listener", ends())
            await asyncio.Event().wait()
    assert "the listener ended" in str(raised.value.exceptions[0])


async def test_group_is_taken_down_by_an_eternal_task_that_believes_itself_cancelled() -> None:
    async def ends() -> None:
        raise asyncio.CancelledError  # as gRPC does for a call whose channel was closed

    with pytest.raises(ExceptionGroup) as raised:
        async with asyncio.timeout(60), Group() as group:
            group.start("part", ends())
            await asyncio.Event().wait()
    assert "part ended" in str(raised.value.exceptions[0])


async def test_group_cancels_the_eternal_and_waits_for_the_short() -> None:
    done: list[str] = []

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            done.append("cancelled")

    async def short() -> None:
        await asyncio.sleep(0)
        done.append("short")

    async with Group() as group:
        group.start("forever", forever())
        group.spawn("short", short())
        await asyncio.sleep(0)
    assert sorted(done) == ["cancelled", "short"]


async def test_lasting_work_goes_on_when_its_caller_goes() -> None:
    lasting, may_end, done = Lasting(), asyncio.Event(), []

    async def work() -> None:
        await may_end.wait()
        done.append("work")

    caller = asyncio.create_task(lasting.do(work()))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    may_end.set()
    await lasting.close()
    assert done == ["work"]
    await lasting.close()


async def test_lagging_listener_is_told_and_the_others_are_not_held_up() -> None:
    broadcast = Broadcast[int](limit=3)
    with broadcast.subscribe() as slow, broadcast.subscribe() as quick:
        for number in range(5):
            broadcast.publish(number)
            assert quick.drain() == [number]
        with pytest.raises(Lagged):
            await anext(slow)
        broadcast.publish(9)
        assert slow.drain()[-1] == 9


def test_atomic_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    assert read_optional(path) is None
    write_atomic(path, b"one")
    write_atomic(path, b"two", mode=0o644)
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o644
    assert [p.name for p in path.parent.iterdir()] == ["file"]


@pytest.mark.kernel
def test_full_disk_keeps_the_old_content(tmp_path: Path) -> None:
    # In a private mount namespace, so that nothing stays mounted when this test dies.
    script = f"""
import errno, os, subprocess, sys
from pathlib import Path
from shoal.errors import Exhausted
from shoal.files import write_atomic
disk = Path({str(tmp_path)!r}, "disk"); disk.mkdir()
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], check=True)
write_atomic(disk / "file", b"old")
try:
    write_atomic(disk / "file", bytes(1 << 20))
except Exhausted as error:
    assert "the disk is full" in str(error), error
else:
    sys.exit("not refused")
assert (disk / "file").read_bytes() == b"old"
assert len(list(disk.iterdir())) == 1
"""
    subprocess.run(["unshare", "--mount", sys.executable, "-c", script], check=True)


def test_ids_are_distinct_and_found_by_prefix() -> None:
    assert len({ids.new_id() for _ in range(100)} | set(ids.new_ids(100))) == 200
    assert all(len(each) == 25 for each in ids.new_ids(3))
    assert len(ids.new_local_id()) == 64
    known = ["abc1", "abd2", "abc"]
    assert ids.resolve("abd", known, kind="container") == "abd2"
    assert ids.resolve("abc", known, kind="container") == "abc"
    with pytest.raises(NotFound, match="No such container: x"):
        ids.resolve("x", known, kind="container")
    with pytest.raises(NotFound):
        ids.resolve("", known, kind="container")
    with pytest.raises(Conflict, match="ambiguous"):
        ids.resolve("ab", known, kind="container")


@pytest.mark.parametrize("name", ["a", "-x", "x y", "../x", "x\n", "", "ä1"])
def test_bad_names_are_refused_printably(name: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        names.check_name(name, "container")
    assert "\n" not in str(raised.value)


def test_good_names_pass() -> None:
    for name in ("ab", "a1", "A.b_c-d"):
        names.check_name(name, "container")
    names.check_name("a", "network")
    for name in ("w", "web-1", "a_b"):
        names.check_service_name(name)
    for name in ("a.b", "-a", "a-", "x" * 64):
        with pytest.raises(InvalidArgument):
            names.check_service_name(name)


def test_made_up_names_are_free_and_allowed() -> None:
    chance = random.Random(1).random
    taken: set[str] = set()
    for _ in range(500):
        name = names.random_name(taken, chance)
        names.check_name(name, "container")
        taken.add(name)
    assert len(taken) == 500


def test_host_port() -> None:
    assert host_port("10.0.0.1", 2377) == ("10.0.0.1", 2377)
    assert host_port("10.0.0.1:99", 2377) == ("10.0.0.1", 99)
    assert host_port("[::1]:99", 2377) == ("::1", 99)
    assert host_port("::1", 2377) == ("::1", 2377)
    for bad in ("h:0", "h:70000", "h:x"):
        with pytest.raises(ValueError, match=r"port|invalid literal"):
            host_port(bad, 2377)


async def test_command_tells_what_it_said() -> None:
    assert (await command.run(["cat"], stdin=b"x")).stdout == b"x"
    with pytest.raises(ShoalError, match="nowhere"):
        await command.run(["ls", "/nowhere"])
    assert (await command.run(["false"], check=False)).code == 1
    # It ends without a look at what it is given.
    assert (await command.run(["false"], stdin=bytes(1_000_000), check=False)).code == 1
    with pytest.raises(ShoalError, match="not installed"):
        await command.run(["no-such-program"])


async def test_a_child_s_streams_go_both_ways() -> None:
    child = await command.Child.start(["cat"], stdin=True, stdout=True, environment={})
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(b"x" * 1_000_000)
    taken = asyncio.ensure_future(child.stdout.read(-1))
    await child.stdin.drain()
    child.stdin.close()
    assert len(await taken) == 1_000_000
    assert await child.wait() == 0


async def test_a_child_that_nobody_listens_to_leaves_no_descriptor() -> None:
    before = len(os.listdir("/proc/self/fd"))
    child = await command.Child.start(["cat", "/dev/zero"], stdin=False, stdout=True, environment={})
    assert child.stdout is not None
    await child.stdout.read(1)
    assert not child.ended
    child.kill()
    assert await child.wait() == -signal.SIGKILL
    async with asyncio.timeout(60):  # transports close their pipe in one of the loop's next rounds
        while len(os.listdir("/proc/self/fd")) != before:
            await asyncio.sleep(0.01)


async def test_cancelled_command_is_killed() -> None:
    running = asyncio.create_task(command.run(["sleep", "1000.25"]))
    while not subprocess.run(["pgrep", "-f", "^sleep 1000.25"], capture_output=True).stdout:
        await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not subprocess.run(["pgrep", "-f", "^sleep 1000.25", "-P", str(os.getpid())], capture_output=True).stdout
