"""What runs is what holds the lock on the pidfile, whatever stands in it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from machine.drivers.qemu import process
from machine.drivers.qemu.vm import Folder
from shoal.clock import SystemClock
from shoal.errors import ShoalError, Unsupported
from tests.unit.machine.drivers.qemu.test_qmp import peer

# As QEMU does: a lock of the process on the whole file.
_HOLD = (
    "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); sys.stdin.read()"
)


@contextmanager
def holder(pidfile: Path) -> Iterator[subprocess.Popen[bytes]]:
    argv = [sys.executable, "-c", _HOLD, pidfile]
    child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None and child.stdout is not None
    with child.stdin, child.stdout:
        child.stdout.readline()
        yield child
        child.kill()
    child.wait()


def test_a_pidfile_that_nobody_holds_names_nobody(tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"
    with process.running(pidfile) as found:
        assert found is None
    pidfile.write_text("1\n")
    with process.running(pidfile) as found:
        assert found is None


def test_who_holds_it_is_found_and_gone_once_it_was_killed(tmp_path: Path) -> None:
    with holder(tmp_path / "pid") as child, process.running(tmp_path / "pid") as found:
        assert found is not None
        assert not found.ended_within(0)
        found.kill()
        found.kill()
        assert child.wait() == -9
        with process.running(tmp_path / "pid") as after:
            assert after is None


def start(folder: Path, *argv: str, pause: Callable[[float], None] = time.sleep) -> None:
    process.start(argv, Folder(folder), descriptors=(), clock=SystemClock(), pause=pause)


def test_what_a_program_that_cannot_start_says_is_told(tmp_path: Path) -> None:
    with pytest.raises(ShoalError, match="sh cannot start: no such disk"):
        start(tmp_path, "sh", "-c", "echo no such disk >&2; exit 1")
    with pytest.raises(Unsupported, match="there is no qemu-of-nowhere"):
        start(tmp_path, "qemu-of-nowhere")


def test_one_that_gives_way_to_another_that_was_on_its_way_has_started(tmp_path: Path) -> None:
    with contextlib.ExitStack() as held:
        held.enter_context(holder(Folder(tmp_path).pidfile))
        pauses = 0

        def pause(seconds: float) -> None:
            nonlocal pauses
            pauses += 1
            time.sleep(seconds)
            # By then ours has ended.
            if pauses == 20:
                held.enter_context(peer(Folder(tmp_path).qmp, {"return": {}}))

        start(tmp_path, "false", pause=pause)
    assert pauses >= 20
