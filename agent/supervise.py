"""Supervise: the manager process of a host that is a manager too, as a child that outlives the agent.

The agent starts it detached, finds it again after its own restart (by a pid file that holds the start time of the
process too, so that a pid used again is nobody of ours), and starts it anew, with back-off, when it dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import msgspec

from shoal.backoff import Backoff
from shoal.clock import Clock
from shoal.files import read_optional, write_atomic
from shoal.tasks import first_of

log = logging.getLogger(__name__)

LOG_MAX_BYTES = 8 << 20
LOOK_AT_LOG_S = 30.0
STOP_S = 15.0
# A process that ran this long was well: the next wait begins small again.
WELL_S = 60.0


class Alive(msgspec.Struct, frozen=True):
    """A process by what no other has: `started` is its start in clock ticks since boot (proc(5), field 22)."""

    pid: int
    started: int


class Supervised:
    """One process: `argv`, with its pid kept in `pid_file` and its output in `log_file`, at most 16 MiB."""

    def __init__(self, argv: Sequence[str], *, pid_file: Path, log_file: Path, clock: Clock) -> None:
        self._argv = tuple(argv)
        self._pid_file = pid_file
        self._log_file = log_file
        self._clock = clock
        self._stopping = asyncio.Event()
        self._died = asyncio.Event()

    async def run(self) -> None:
        """Keep it running until `stop`, or until this is cancelled: the process then goes on."""
        backoff = Backoff(0.2, 10)
        async with asyncio.TaskGroup() as group:
            rotation = group.create_task(self._bound_log())
            while not self._stopping.is_set():
                began = self._clock.monotonic()
                process = self.running() or self._start()
                if process is not None:
                    await gone(process.pid)
                if self._clock.monotonic() - began > WELL_S:
                    backoff.reset()
                await self._pause(backoff.next())
            rotation.cancel()

    def running(self) -> Alive | None:
        """The process, if one that we or an earlier agent started lives."""
        return alive_in(self._pid_file)

    async def died(self) -> None:
        """Return at the next end of the process that nobody asks for; those that were before are over."""
        self._died.clear()
        await self._died.wait()

    def last_words(self) -> str:
        """The last line of its output."""
        lines = (read_optional(self._log_file) or b"")[-4096:].decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL after 15 s. Returns once it is gone; `run` then ends."""
        self._stopping.set()
        process = self.running()
        if process is not None:
            await stop_process(process)
        self._pid_file.unlink(missing_ok=True)

    async def _pause(self, wait_s: float) -> None:
        """Between an end that nobody asked for and the next start."""
        if self._stopping.is_set():
            return
        self._died.set()
        log.error("%s ended, starting it again in=%.1fs said=%r", self._argv[0], wait_s, self.last_words())
        await first_of(self._stopping.wait(), self._clock.sleep(wait_s))

    def _start(self) -> Alive | None:
        """None, and said in the log, where it cannot even be started."""
        self._log_file.parent.mkdir(parents=True, exist_ok=True)
        with self._log_file.open("ab") as output:
            try:
                child = subprocess.Popen(
                    self._argv,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    # Its own session: a signal to the agent's group is none of its business.
                    start_new_session=True,
                    env={name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"},
                )
            except OSError as error:
                output.write(f"cannot start {self._argv[0]}: {error.strerror}\n".encode())
                return None
        # Popen would poll the pid when it is collected; the pidfd in `_gone` reaps it instead.
        child.returncode = 0
        process = Alive(child.pid, _start_time(child.pid) or 0)
        write_atomic(self._pid_file, msgspec.json.encode(process), mode=0o644, durable=False)
        log.info("%s started pid=%d", self._argv[0], child.pid)
        return process

    async def _bound_log(self) -> None:
        """Its descriptor appends, so the file can be emptied under it (open(2), O_APPEND)."""
        while True:
            with contextlib.suppress(FileNotFoundError):
                if self._log_file.stat().st_size > LOG_MAX_BYTES:
                    await asyncio.to_thread(_rotate, self._log_file)
            await self._clock.sleep(LOOK_AT_LOG_S)


def alive_in(pid_file: Path) -> Alive | None:
    """The process that a pid file speaks of, if it lives."""
    data = read_optional(pid_file)
    if data is None:
        return None
    try:
        process = msgspec.json.decode(data, type=Alive)
    except msgspec.MsgspecError:
        return None
    return process if _start_time(process.pid) == process.started else None


async def stop_process(process: Alive, *, timeout_s: float = STOP_S) -> None:
    """End it politely, or else by force; returns once it is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGTERM)
    try:
        async with asyncio.timeout(timeout_s):
            await gone(process.pid)
    except TimeoutError:
        log.warning("pid %d does not end, killing it", process.pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        await gone(process.pid)


async def gone(pid: int) -> None:
    """Return once the process has ended; a child is reaped (pidfd_open(2), waitid(2))."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        await _readable(descriptor)
        # An adopted one is somebody else's child, or was reaped by another waiter of ours.
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, descriptor, os.WEXITED | os.WNOHANG)  # noqa: ASYNC222  # WNOHANG: it does not wait
    finally:
        os.close(descriptor)


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    if select.select([descriptor], [], [], 0)[0]:
        return

    def end() -> None:
        if not ended.done():
            ended.set_result(None)

    loop.add_reader(descriptor, end)
    try:
        await ended
    finally:
        loop.remove_reader(descriptor)


def _start_time(pid: int) -> int | None:
    """None where no process of that pid runs; a zombie runs no more."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.decode(errors="replace").rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def _rotate(path: Path) -> None:
    path.with_name(path.name + ".1").write_bytes(path.read_bytes()[-LOG_MAX_BYTES:])
    os.truncate(path, 0)
