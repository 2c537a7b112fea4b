"""Writes that go on while their caller does something else."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from agent.kernel import aio

pytestmark = pytest.mark.skipif(not aio.AVAILABLE, reason="another C library than glibc, or 32 bits")


def test_they_come_to_the_end_of_the_file(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, b"before\n")
    data = b"line\n" * 100_000
    assert [aio.Write(fd, data, size).wait() for size in (10, len(data))] == [10, len(data)]
    os.close(fd)
    assert (tmp_path / "log").read_bytes() == b"before\n" + data[:10] + data


def test_one_that_cannot_be_says_why() -> None:
    with open("/dev/full", "ab", buffering=0) as full:
        write = aio.Write(full.fileno(), b"lost", 4)
        with pytest.raises(OSError, match="No space left") as failed:
            write.wait()
    assert failed.value.errno == errno.ENOSPC


def test_what_is_written_stays_in_memory_though_nobody_waits(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    data = bytes(8 << 20)
    aio.Write(fd, data[:-1], len(data) - 1)
    (left,) = aio._under_way
    assert left.wait() == len(data) - 1
    assert not aio._under_way
    os.close(fd)
