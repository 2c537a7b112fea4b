"""Files that are whole or absent, and what a process that was killed leaves beside them."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from shoal.errors import Exhausted
from shoal.files import sweep_unfinished, write_atomic, write_new

# Dies between the writing and the renaming.
KILLED = """
import os, sys, pathlib
os.rename = lambda *_: os.kill(os.getpid(), 9)
from shoal.files import write_atomic
write_atomic(pathlib.Path(sys.argv[1]), b"new")
"""


def test_what_a_killed_write_leaves_is_swept_and_nothing_else(tmp_path: Path) -> None:
    kept = tmp_path / "record.json"
    write_atomic(kept, b"old")
    subprocess.run([sys.executable, "-c", KILLED, str(kept)], cwd=Path(__file__).parents[3])
    assert len(list(tmp_path.iterdir())) == 2, "the write was not broken off"
    sweep_unfinished(tmp_path)
    assert list(tmp_path.iterdir()) == [kept]
    assert kept.read_bytes() == b"old"


def test_a_new_file_is_whole_and_its_writers_to_sync(tmp_path: Path) -> None:
    descriptor = write_new(str(tmp_path / "record"), b"text", mode=0o640)
    assert (tmp_path / "record").read_bytes() == b"text"
    assert os.fstat(descriptor).st_ino == (tmp_path / "record").stat().st_ino
    assert os.fstat(descriptor).st_mode & 0o777 == 0o640
    os.close(descriptor)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("write", [write_new, write_atomic])
@pytest.mark.parametrize("call", ["write", "rename"])
def test_of_a_file_that_cannot_be_written_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write, call: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = os.listdir("/proc/self/fd")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(Exhausted, match="the disk is full"):
            write(str(tmp_path / "record"), b"text")
    assert list(tmp_path.iterdir()) == []
    assert len(os.listdir("/proc/self/fd")) == len(before)
