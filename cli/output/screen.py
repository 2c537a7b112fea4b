"""Lines that are drawn again in place, on a terminal; elsewhere only what is new is written, line by line.

And the standard streams themselves: bytes of a container go out unchanged, whatever the locale.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TextIO

from shoal.errors import ShoalError

# Of a terminal that does not say how large it is.
_COLUMNS, _ROWS = 80, 24


class Screen:
    """A block of lines at the cursor. `live` says whether it can be redrawn."""

    def __init__(self, out: TextIO) -> None:
        self.live = out.isatty() and os.environ.get("TERM", "") != "dumb"
        self._out = out
        self._drawn = 0

    @property
    def width(self) -> int:
        """Columns of the terminal."""
        return self._size().columns or _COLUMNS

    @property
    def rows(self) -> int:
        """How many lines can be redrawn; the cursor stands below them."""
        return (self._size().lines or _ROWS) - 1

    def draw(self, lines: Sequence[str]) -> None:
        """Show `lines`, as far as there is room, instead of the last ones; only on a live screen."""
        self._drawn = self._write(lines[: self.rows])

    def settle(self, lines: Sequence[str]) -> None:
        """Show all of `lines` instead of the last ones; they stay, and what is drawn next stands below them."""
        self._write(lines)
        self._drawn = 0

    def say(self, line: str) -> None:
        """Write a line that stays."""
        self._out.write(f"{line}\n")
        self._out.flush()
        self._drawn = 0

    def _write(self, lines: Sequence[str]) -> int:
        room = self.width - 1
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        body = "".join(f"\r\x1b[2K{fitting(line, room)}\n" for line in lines)
        rest = "\x1b[J" if len(lines) < self._drawn else ""
        self._out.write(up + body + rest)
        self._out.flush()
        return len(lines)

    def _size(self) -> os.terminal_size:
        try:
            return os.get_terminal_size(self._out.fileno())
        except (OSError, ValueError):  # no descriptor, or none of a terminal
            return os.terminal_size((_COLUMNS, _ROWS))


def fitting(line: str, columns: int) -> str:
    """As much of `line` as so many columns show; without what would move the cursor, or clear or colour the screen."""
    if line.isascii() and line.isprintable():
        return line[:columns]
    import re  # for who draws what a command wrote
    import unicodedata

    plain = re.sub(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|.)?", "", line.expandtabs())
    shown = []
    for letter in plain:
        if unicodedata.category(letter) in ("Cc", "Cf", "Cs"):
            continue
        wide = unicodedata.east_asian_width(letter) in ("W", "F")
        columns -= 0 if unicodedata.combining(letter) else 2 if wide else 1
        if columns < 0:
            break
        shown.append(letter)
    return "".join(shown)


def write_stdout(data: bytes) -> None:
    """Bytes to stdout, at once. Raises ShoalError where they cannot be written, as to a disk that is full."""
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ShoalError(f"write stdout: {(error.strerror or str(error)).lower()}") from error


def write_stderr(data: bytes) -> None:
    """Bytes to stderr, at once."""
    sys.stderr.flush()
    sys.stderr.buffer.write(data)
    sys.stderr.buffer.flush()


def bar(current: int, total: int, width: int) -> str:
    """`[=====>    ]`."""
    done = min(current * width // total, width) if total else width
    return "[" + ("=" * done + ">")[:width].ljust(width) + "]"
