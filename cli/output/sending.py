"""How a file looks while it goes to a daemon: one line with a bar, on a terminal and nowhere else."""

from __future__ import annotations

import os
import stat
from typing import IO, TextIO

from cli.output.screen import Screen, bar
from cli.output.words import decimal_size

_BAR = 50


class Sending:
    """Feed it what has gone. `label` stands before it; a total is known of files alone."""

    def __init__(self, out: TextIO, source: IO[bytes], *, label: str) -> None:
        self._screen = Screen(out)
        self._label = label
        self._total_bytes = size_of(source)
        self._gone_bytes = 0

    def went(self, count: int) -> None:
        """So many bytes more."""
        self._gone_bytes += count
        if not self._screen.live:
            return
        gone = decimal_size(self._gone_bytes, 4)
        if self._total_bytes:
            drawn = bar(self._gone_bytes, self._total_bytes, _BAR)
            gone = f"{drawn} {gone:>8}/{decimal_size(self._total_bytes, 4)}"
        self._screen.draw([f"{self._label} {gone}"])


def size_of(source: IO[bytes]) -> int:
    """Of a file its size, 0 of a pipe."""
    try:
        about = os.fstat(source.fileno())
    except OSError:
        return 0
    return about.st_size if stat.S_ISREG(about.st_mode) else 0
