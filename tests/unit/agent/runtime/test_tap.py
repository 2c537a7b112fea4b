"""What is seen in a pipe stays there until it is taken, whatever kind of pipe a container makes of it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from agent.runtime.tap import CHUNK, Tap


@pytest.fixture(params=[0, os.O_DIRECT], ids=["bytes", "packets"])
def pipe(request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
    """A container may turn its output into packets, which are read one at a time (pipe(2), O_DIRECT)."""
    ends = os.pipe2(os.O_NONBLOCK | request.param)
    yield ends
    for end in ends:
        os.close(end)


def test_it_shows_all_and_takes_what_it_is_told(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    tap, last = Tap(), bytearray(1)
    for packet in (b"one\n", b"two\n", b"three\n"):
        os.write(writer, packet)
    assert tap.peek(reader) == tap.peek(reader) == b"one\ntwo\nthree\n"
    tap.take(reader, 8, memoryview(last))
    assert last == b"\n"
    assert tap.peek(reader) == b"three\n"
    tap.take(reader, 6, memoryview(last))
    with pytest.raises(BlockingIOError):
        tap.peek(reader)


def test_it_shows_what_stands_behind_what_is_known(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    tap = Tap()
    for packet in (b"one\n", b"two\n", b"three\n"):
        os.write(writer, packet)
    assert [tap.peek(reader, behind) for behind in (4, 6, 14)] == [b"two\nthree\n", b"o\nthree\n", b""]
    assert tap.peek(reader) == b"one\ntwo\nthree\n"
    with pytest.raises(BlockingIOError):
        tap.peek(reader, 15)  # the container has read some of it itself
    assert tap.peek(reader) == b"one\ntwo\nthree\n"


def test_nothing_of_one_pipe_is_seen_in_another(pipe: tuple[int, int]) -> None:
    tap = Tap()
    other, its_writer = os.pipe2(os.O_NONBLOCK)
    for _ in range(10):
        os.write(pipe[1], b"first")
    os.write(its_writer, b"second")
    assert tap.peek(pipe[0]) == b"first" * 10
    assert tap.peek(other) == b"second"
    os.close(its_writer)
    tap.take(other, 6, memoryview(bytearray(1)))
    assert tap.peek(other) == b""
    os.close(other)


def test_what_the_container_has_read_itself_is_not_waited_for() -> None:
    reader, writer = os.pipe2(os.O_NONBLOCK)
    tap, last = Tap(), bytearray(1)
    os.write(writer, b"x" * 1000)
    seen = len(tap.peek(reader))
    os.read(reader, 10)
    tap.take(reader, seen, memoryview(last))
    assert last == b"\0"
    os.write(writer, b"y" * CHUNK)
    assert set(tap.peek(reader)) == {ord("y")}
    os.close(reader)
    os.close(writer)
