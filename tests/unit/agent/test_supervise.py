"""The supervised process, with real processes: it outlives its agent, comes back when it dies, and ends when told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent import supervise
from agent.supervise import Alive, Supervised, alive_in, stop_process
from shoal.clock import SystemClock
from tests.unit.agent.conftest import eventually

SLEEPS = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"


class Watch:
    """One agent's supervision of a process in `folder`."""

    def __init__(self, folder: Path, script: str) -> None:
        self.pid_file = folder / "it.pid"
        self.log_file = folder / "it.log"
        argv = [sys.executable, "-c", script]
        self.process = Supervised(argv, pid_file=self.pid_file, log_file=self.log_file, clock=SystemClock())
        self.task = asyncio.create_task(self.process.run())

    async def up(self) -> Alive:
        await eventually(lambda: self.log_file.exists() and "up" in self.log_file.read_text())
        alive = self.process.running()
        assert alive is not None
        return alive

    async def agent_dies(self) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task


@pytest.fixture
async def pids(tmp_path: Path) -> AsyncIterator[None]:
    """No process that a test left behind survives it."""
    yield
    left = alive_in(tmp_path / "it.pid")
    if left is not None:
        os.kill(left.pid, signal.SIGKILL)


@pytest.mark.usefixtures("pids")
class TestSupervised:
    async def test_is_started_and_stopped(self, tmp_path: Path) -> None:
        watch = Watch(tmp_path, SLEEPS)
        await watch.up()
        await watch.process.stop()
        assert watch.process.running() is None
        await watch.task
        assert not watch.pid_file.exists()

    async def test_outlives_the_agent_and_is_adopted_by_the_next(self, tmp_path: Path) -> None:
        watch = Watch(tmp_path, SLEEPS)
        first = await watch.up()
        await watch.agent_dies()
        again = Watch(tmp_path, SLEEPS)
        assert await eventually(again.process.running) == first
        await again.process.stop()

    async def test_is_started_again_when_it_dies(self, tmp_path: Path) -> None:
        watch = Watch(tmp_path, SLEEPS)
        first = await watch.up()
        dying = asyncio.create_task(watch.process.died())
        await asyncio.sleep(0)
        os.kill(first.pid, signal.SIGKILL)
        await dying
        second = await eventually(watch.process.running)
        assert second != first
        again = asyncio.create_task(watch.process.died())
        await asyncio.sleep(0)
        assert not again.done()  # the end before is over
        os.kill(second.pid, signal.SIGKILL)
        await again
        await watch.process.stop()

    async def test_leaves_no_zombie(self, tmp_path: Path) -> None:
        watch = Watch(tmp_path, SLEEPS)
        first = await watch.up()
        os.kill(first.pid, signal.SIGKILL)
        await eventually(lambda: not Path(f"/proc/{first.pid}").exists())
        await watch.process.stop()

    async def test_a_program_that_fails_says_why(self, tmp_path: Path) -> None:
        watch = Watch(tmp_path, "import sys; sys.exit('listen 0.0.0.0:2377: address in use')")
        await watch.process.died()
        assert watch.process.last_words() == "listen 0.0.0.0:2377: address in use"
        await watch.process.stop()

    async def test_a_program_that_is_missing_says_so(self, tmp_path: Path) -> None:
        process = Supervised(
            ["/nowhere/shoal-manager"],
            pid_file=tmp_path / "it.pid",
            log_file=tmp_path / "it.log",
            clock=SystemClock(),
        )
        running = asyncio.create_task(process.run())
        await process.died()
        assert process.last_words() == "cannot start /nowhere/shoal-manager: No such file or directory"
        await process.stop()
        await running

    async def test_one_that_ignores_the_signal_is_killed(self, tmp_path: Path) -> None:
        watch = Watch(tmp_path, STUBBORN)
        alive = await watch.up()
        await stop_process(alive, timeout_s=0.2)
        assert not Path(f"/proc/{alive.pid}").exists()
        await watch.process.stop()

    async def test_its_log_is_bounded_while_it_writes(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(supervise, "LOG_MAX_BYTES", 1000)
        monkeypatch.setattr(supervise, "LOOK_AT_LOG_S", 0.01)
        watch = Watch(tmp_path, "import time\nwhile True: print('up', 'x' * 90, flush=True); time.sleep(0.001)")
        old = tmp_path / "it.log.1"
        await eventually(old.exists)
        first = old.stat().st_mtime_ns
        await eventually(lambda: old.stat().st_mtime_ns != first)  # and again
        await watch.process.stop()


def test_a_pid_used_again_is_nobody_of_ours(tmp_path: Path) -> None:
    (tmp_path / "it.pid").write_text(f'{{"pid": {os.getpid()}, "started": 1}}')
    assert alive_in(tmp_path / "it.pid") is None
    (tmp_path / "it.pid").write_text("torn")
    assert alive_in(tmp_path / "it.pid") is None
