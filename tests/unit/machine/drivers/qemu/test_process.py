"""What runs is what holds the lock on the pidfile, whatever stands in it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from machine.drivers.qemu import process

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
