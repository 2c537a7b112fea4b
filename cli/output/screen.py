"""Lines that are drawn again in place, on a terminal; elsewhere only what is new is written, line by line.

And the standard streams themselves: bytes of a container go out unchanged, whatever the locale.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TextIO

from shoal.errors import ShoalError


class Screen:
    """A block of lines at the cursor. `live` says whether it can be redrawn."""

    def __init__(self, out: TextIO) -> None:
        self.live = out.isatty() and os.environ.get("TERM", "") != "dumb"
        self._out = out
        self._drawn: list[str] = []

    @property
    def width(self) -> int:
        """Columns of the terminal."""
        from shutil import get_terminal_size  # with all compressions: for who draws

        return get_terminal_size().columns

    def draw(self, lines: Sequence[str]) -> None:
        """Show `lines` instead of the last ones; only on a live screen."""
        width = self.width
        up = f"\x1b[{len(self._drawn)}A" if self._drawn else ""
        body = "".join(f"\r\x1b[2K{line[: width - 1]}\n" for line in lines)
        rest = "\x1b[J" if len(lines) < len(self._drawn) else ""
        self._out.write(up + body + rest)
        self._out.flush()
        self._drawn = list(lines)

    def say(self, line: str) -> None:
        """Write a line that stays."""
        self._out.write(f"{line}\n")
        self._out.flush()
        self._drawn = []


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
