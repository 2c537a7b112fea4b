"""Launcher: how a keeper comes to run, apart from the agent that wants one. `daemon` is what it starts.

Waiting for its child it neither looks again and again nor sleeps: on a host whose clock somebody shifts with a library
(libfaketime), Python's `time.sleep` fails with EINVAL.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from agent.kernel import unwritable
from shoal.errors import Unavailable

STATE = "keeper"
_ROOMS = str(Path(__file__).resolve().parents[2])
_CODE = f"import sys; sys.path.insert(0, {_ROOMS!r}); from agent.runtime.daemon import main; main()"
SPAWN_S = 20.0


def launch(run_dir: Path, socket: Path) -> None:
    """Start a keeper and return when it listens on `socket`, or has given up or not been ready in time; it leaves this
    process's session, so only a signal to it ends it. Blocks.

    Raises Unavailable, with the call that failed, when the host has no process, no file or no room to spare just now.
    """
    state = run_dir / STATE
    argv = [sys.executable, "-I", "-S", "-E", "-c", _CODE, str(state.resolve()), str(socket.absolute())]
    environment = {name: os.environ[name] for name in ("SHOAL_EXECUTOR",) if name in os.environ}
    with _trying(f"mkdir {state}"):
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _trying(f"open {state / 'keeper.log'}"):
        log = (state / "keeper.log").open("ab")
    with _trying(f"open_tree {sys.executable}"):
        program = unwritable.program(sys.executable)
    with log, _closing(program), _trying(f"fork, exec {sys.executable}"):
        process = subprocess.Popen(
            argv,
            executable=f"/proc/self/fd/{program}",
            pass_fds=(program,),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=environment,
        )
    with _trying(f"wait for pid {process.pid}"):
        if not _ends(process.pid):  # it forks: this one ends when the other listens
            process.kill()
        process.wait()


def last_words(run_dir: Path) -> str:
    """The end of the keeper's log, for the error that tells of its death."""
    try:
        lines = (run_dir / STATE / "keeper.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return ""
    return f"its log ends with: {lines[-1]}" if lines else ""


def _ends(pid: int) -> bool:
    """Whether our child `pid` ends in time (pidfd_open(2))."""
    descriptor = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(SPAWN_S * 1000))
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _closing(descriptor: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _trying(call: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(f"a keeper cannot be started: {call}: {error.strerror}") from error
