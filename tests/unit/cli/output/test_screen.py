"""What is drawn stays within the terminal, whatever is drawn."""

from __future__ import annotations

import io
import os
import pty
import termios
from collections.abc import Iterator

import pytest

from cli.output.pulling import Pulling
from cli.output.screen import Screen, fitting
from shoal.v1.engine_pb2 import LayerProgress


class Terminal(io.StringIO):
    """Six lines of twenty columns."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        termios.tcsetwinsize(descriptor, (6, 20))

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def written(self) -> str:
        """Since the last time."""
        text = self.getvalue()
        self.seek(0)
        self.truncate()
        return text


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.setenv("TERM", "xterm")
    ours, theirs = pty.openpty()
    try:
        yield Terminal(theirs)
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("plain text", "plain te"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b[2J\x1b[H\x1b]0;title\x07away", "away"),
        ("a\tb", "a       "),
        ("日本語日本語", "日本語日"),
        ("1日本語日本語", "1日本語"),
        ("e\u0301te\u0301", "e\u0301te\u0301"),
        ("bell\x07 \x9b2Jcut\x1b", "bell 2Jc"),
    ],
)
def test_a_line_takes_no_more_columns_than_there_are(line: str, shown: str) -> None:
    assert fitting(line, 8) == shown


def test_what_has_no_room_is_shown_once_it_settles(terminal: Terminal) -> None:
    screen = Screen(terminal)
    screen.draw([f"line {number}" for number in range(9)])
    assert terminal.written().count("\n") == 5
    screen.settle([f"line {number}" for number in range(9)])
    settled = terminal.written()
    assert settled.startswith("\x1b[5A") and settled.count("\n") == 9
    screen.draw(["next"])
    assert not terminal.written().startswith("\x1b[9A")


def test_layers_that_move_are_those_that_are_seen(terminal: Terminal) -> None:
    shown = Pulling(terminal)
    for number in range(8):
        shown.layer(LayerProgress(id=f"layer{number}", status="Already exists"))
    shown.layer(LayerProgress(id="last", status="Downloading", current_bytes=1, total_bytes=2))
    drawn = terminal.written().rpartition("\x1b[5A")[2]
    assert "last: Downloading" in drawn and "layer" not in drawn
    shown.end()
    assert terminal.written().count("\n") == 9


def test_a_terminal_that_does_not_say_how_large_it_is_has_the_usual_size(terminal: Terminal) -> None:
    termios.tcsetwinsize(terminal, (0, 0))
    screen = Screen(terminal)
    assert (screen.width, screen.rows) == (80, 23)
