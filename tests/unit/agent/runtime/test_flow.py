"""Much output: one round is written while the next is made."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from mmap import mmap
from pathlib import Path

import pytest

from agent.kernel import aio
from agent.runtime.flow import LEAST, Flow
from agent.runtime.logfile import LogFile
from agent.runtime.loop import Loop
from agent.runtime.stdio import Stdio, Streams
from agent.runtime.tap import CHUNK, Tap

pytestmark = pytest.mark.skipif(not aio.AVAILABLE, reason="another C library than glibc, or 32 bits")


ROUND = CHUNK // 100  # lines of one


class Pipes:
    """A container's, and its keeper's `stdio`."""

    def __init__(self, log: LogFile, flow: Flow | None = None) -> None:
        self.flow = flow or Flow(Tap())
        self.out, self.err = (os.pipe2(os.O_NONBLOCK) for _ in range(2))
        for reader, _ in (self.out, self.err):
            fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 1 << 20)
        self.stdio = Stdio(Loop(0), self.flow)
        self.stdio.open(Streams({self.out[0]: 1, self.err[0]: 2}, -1, -1), log)

    def turn(self, reader: int) -> None:
        self.stdio._reader(reader)(0)  # as the loop would

    def close(self) -> None:
        self.stdio.close()
        for _, writer in (self.out, self.err):
            os.close(writer)


def lines(first: int, count: int) -> bytes:
    return b"".join(b"%07d %s\n" % (number, b"x" * 91) for number in range(first, first + count))


def logged(folder: Path) -> list[tuple[str, str]]:
    files = sorted(folder.glob("log*"), key=lambda path: -int(path.suffix[1:] or 0))
    entries = [json.loads(line) for path in files for line in path.read_text().splitlines()]
    return [(each["stream"], each["log"]) for each in entries]


@pytest.fixture
def pipes(tmp_path: Path) -> Iterator[Pipes]:
    made = Pipes(LogFile(str(tmp_path / "log"), 300_000, 50))
    yield made
    made.close()


def test_it_is_logged_in_order_over_rotations(pipes: Pipes, tmp_path: Path) -> None:
    text = lines(0, 40_000)
    said = flowed = 0
    while said < len(text):
        said += os.write(pipes.out[1], text[said : said + (1 << 19)])
        for _ in range(3):
            pipes.turn(pipes.out[0])
            flowed += pipes.flow.fd == pipes.out[0]
    assert flowed > 10
    os.write(pipes.out[1], b"the end\nand no more")
    pipes.stdio.drain()
    assert pipes.flow.fd == -1
    assert "".join(text for _, text in logged(tmp_path)).encode() == text + b"the end\nand no more"
    assert len(list(tmp_path.glob("log*"))) > 10


def test_a_round_stays_in_the_pipe_until_it_is_written(pipes: Pipes) -> None:
    os.write(pipes.out[1], lines(0, 3000))
    pipes.turn(pipes.out[0])
    assert len(pipes.flow.tap.peek(pipes.out[0])) == 300_000
    pipes.turn(pipes.out[0])
    assert len(pipes.flow.tap.peek(pipes.out[0])) < 200_000  # a file holds so many


def test_a_round_is_on_its_way_to_the_disk_before_the_one_before_is_over(tmp_path: Path) -> None:
    begun: list[int] = []

    def write(fd: int, data: bytes | mmap, size: int) -> aio.Write:
        begun.append(len(pipes.flow.tap.peek(pipes.out[0], chunks=2)))  # what is still in the pipe
        return aio.Write(fd, data, size)

    pipes = Pipes(LogFile(str(tmp_path / "log"), 0, 1), Flow(Tap(), write=write))
    text = lines(0, 10_000)
    os.write(pipes.out[1], text)
    for _ in range(3):
        pipes.turn(pipes.out[0])
    assert begun == [2 * CHUNK, 2 * CHUNK, len(text) - 100 * ROUND]
    pipes.stdio.drain()
    assert "".join(text for _, text in logged(tmp_path)).encode() == text
    pipes.close()


class Short(aio.Write):
    """Of which the disk took so much."""

    def __init__(self, fd: int, data: bytes | mmap, size: int, takes: int) -> None:
        super().__init__(fd, data, min(size, takes))


@pytest.mark.parametrize(("takes", "kept"), [(100, range(0)), (200_000, range(1176)), (0, range(ROUND, 2 * ROUND))])
def test_what_is_behind_a_torn_line_is_lost_with_it(tmp_path: Path, takes: int, kept: range) -> None:
    """As when the disk is full: the first of two rounds ends within a line. Where nothing of it is written, nothing is
    torn."""
    amounts = iter((takes, 1 << 30))
    flow = Flow(Tap(), write=lambda fd, data, size: Short(fd, data, size, next(amounts)))
    pipes = Pipes(LogFile(str(tmp_path / "log"), 0, 1), flow)
    os.write(pipes.out[1], lines(0, 2 * ROUND))
    for _ in range(2):
        pipes.turn(pipes.out[0])
    pipes.stdio.drain()
    pipes.close()
    assert [int(text[:7]) for _, text in logged(tmp_path)] == list(kept)


def test_where_no_thread_can_be_had_for_the_next_one_it_comes_behind(tmp_path: Path) -> None:
    begun: list[aio.Write] = []

    def one(fd: int, data: bytes | mmap, size: int) -> aio.Write:
        if begun:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        begun.append(aio.Write(fd, data, size))
        return begun[0]

    pipes = Pipes(LogFile(str(tmp_path / "log"), 0, 1), Flow(Tap(), write=one))
    os.write(pipes.out[1], lines(0, 2 * ROUND))
    for _ in range(2):
        pipes.turn(pipes.out[0])
    pipes.stdio.drain()
    pipes.close()
    assert "".join(text for _, text in logged(tmp_path)).encode() == lines(0, 2 * ROUND)


def test_little_flows_no_more(pipes: Pipes, tmp_path: Path) -> None:
    os.write(pipes.out[1], lines(0, LEAST // 100 + 1))
    pipes.turn(pipes.out[0])
    os.write(pipes.out[1], b"little\n")
    for _ in range(2):
        pipes.turn(pipes.out[0])
    assert pipes.flow.fd == -1
    assert logged(tmp_path)[-1] == ("stdout", "little\n")


def test_the_other_stream_comes_behind_what_is_being_written(pipes: Pipes, tmp_path: Path) -> None:
    os.write(pipes.out[1], lines(0, 1400))
    pipes.turn(pipes.out[0])
    os.write(pipes.err[1], b"an error\n")
    pipes.turn(pipes.err[0])
    assert logged(tmp_path)[1400] == ("stderr", "an error\n")


def test_there_is_one_for_all(pipes: Pipes, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Pipes(LogFile(str(tmp_path / "other/log"), 0, 1), pipes.flow)
    for each in (pipes, other):
        os.write(each.out[1], lines(0, 1400))
        each.turn(each.out[0])
    assert pipes.flow.fd == pipes.out[0]
    assert len(logged(tmp_path / "other")) == 1400
    other.close()


def test_what_is_no_text_does_not_flow(pipes: Pipes, tmp_path: Path) -> None:
    os.write(pipes.out[1], b"\xff" + lines(0, 1400))
    pipes.turn(pipes.out[0])
    assert pipes.flow.fd == -1
    assert len(logged(tmp_path)) == 1400


def test_a_full_disk_loses_lines_and_stops_nothing() -> None:
    pipes = Pipes(LogFile("/dev/full", 0, 1))
    os.write(pipes.out[1], lines(0, 3000))
    for _ in range(4):
        pipes.turn(pipes.out[0])
    with pytest.raises(BlockingIOError):
        pipes.flow.tap.peek(pipes.out[0])
    pipes.close()


def test_where_no_thread_can_be_had_it_is_written_at_once(tmp_path: Path) -> None:
    def refused(*_: object) -> aio.Write:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    pipes = Pipes(LogFile(str(tmp_path / "log"), 0, 1), Flow(Tap(), write=refused))
    os.write(pipes.out[1], lines(0, 1400))
    for _ in range(2):
        pipes.turn(pipes.out[0])
    assert "".join(text for _, text in logged(tmp_path)).encode() == lines(0, 1400)
    pipes.close()
