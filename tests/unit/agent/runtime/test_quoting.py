"""Lines are in a log what they were, whichever way they are quoted."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kernel.machinecode import supported
from agent.runtime import quoting
from agent.runtime.quoting import Lines, Machine, plain

BEFORE, AFTER = b'{"log":"', b'\\n","stream":"stdout","time":"1970-01-01T00:00:00.000000000Z"}\n'
ODD = "".join(map(chr, range(0x20))) + '"\\\x7fä€\U0001f41f'
PIECES = st.text(st.sampled_from(ODD) | st.sampled_from("abc"), max_size=40) | st.sampled_from(
    ["\n", "x" * 33, "\\" * 9]
)
Way = Callable[[bytes], Lines | None]


def by_machine(text: bytes, room: int = 100_000) -> Lines | None:
    """In the first part of some memory, the rest of which has to stay as it is."""
    memory = bytearray(b"~" * (room + 4096))
    found = Machine().lines(text, BEFORE, AFTER, memoryview(memory)[:room])
    assert memory[room:] == b"~" * 4096
    return found and found._replace(block=bytes(found.block))


WAYS = [
    pytest.param(lambda text: plain(text, BEFORE, AFTER), id="plain"),
    pytest.param(by_machine, id="machine", marks=pytest.mark.skipif(not supported(), reason="another processor")),
]


def read(found: Lines) -> str:
    """What somebody who reads the log gets."""
    return "".join(json.loads(line)["log"] for line in bytes(found.block[: found.size]).split(b"\n") if line)


@pytest.mark.parametrize("way", WAYS)
@given(st.lists(PIECES).map("".join))
def test_the_whole_lines_of_a_text_are_read_as_they_were_written(way: Way, text: str) -> None:
    found = way(text.encode())
    assert found is not None
    whole = text[: text.rfind("\n") + 1]
    assert found.end == len(whole.encode())
    if whole:
        assert read(found) == whole
        assert found.block[found.size - 1 : found.size] == b"\n"


@pytest.mark.parametrize("way", WAYS)
def test_each_character_stands_at_each_place_of_a_step(way: Way) -> None:
    for each in ODD.replace("\n", ""):
        for place in range(34):
            text = "x" * place + each + "y" * (33 - place) + "\n"
            found = way(text.encode())
            assert found is not None
            assert read(found) == text


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "text", [b"\xff\n", b"plain\n" * 20 + b"\xc3\n", b"x" * 40 + b"\x80\n", "ä".encode()[:1] + b"\n"]
)
def test_what_is_no_text_is_refused(way: Way, text: bytes) -> None:
    assert way(text) is None


@pytest.mark.parametrize("way", WAYS)
def test_the_beginning_of_a_line_is_left_and_may_end_within_a_character(way: Way) -> None:
    found = way("all\nhalf a €".encode()[:-1])
    assert found is not None
    assert (found.end, read(found)) == (4, "all\n")


@pytest.mark.skipif(not supported(), reason="another processor")
@pytest.mark.parametrize("line", ["\n", "y\n", "x" * 99 + "\n", "\0" * 50 + "\n", '"' * 15 + "\n", "x" * 16 + "\n"])
def test_as_many_lines_are_made_as_there_is_room_for(line: str) -> None:
    text = line * 5000
    for room in range(2000, 2070):
        found = by_machine(text.encode(), room)
        assert found is not None
        assert 0 < found.end < len(text)
        assert read(found) == text[: found.end]
        assert found.size > room - 1000


def test_there_is_nothing_without_a_whole_line() -> None:
    memory = quoting.room()
    assert quoting.lines(b"", BEFORE, AFTER, memory) is None
    assert quoting.lines(b"half a line", BEFORE, AFTER, memory) is None


def test_where_code_is_forbidden_it_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(_: bytes) -> None:
        raise OSError("mprotect: Permission denied")

    quoting._machine.cache_clear()
    monkeypatch.setattr(quoting, "MachineCode", forbidden)
    try:
        found = quoting.lines(b'a "line"\nand', BEFORE, AFTER, quoting.room())
    finally:
        quoting._machine.cache_clear()
    assert found == plain(b'a "line"\nand', BEFORE, AFTER)
