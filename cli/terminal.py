"""The user's terminal: raw while a container has it, its size, and the keys that let go of the container."""

from __future__ import annotations

import contextlib
import os
import termios
import tty
from collections.abc import Iterator

STDIN, STDOUT = 0, 1
DEFAULT_DETACH_KEYS = b"\x10\x11"  # ctrl-p ctrl-q


def is_terminal(descriptor: int) -> bool:
    return os.isatty(descriptor)


def size() -> tuple[int, int]:
    """(rows, columns) of the terminal at stdout or stdin; zeros when there is none."""
    for descriptor in (STDOUT, STDIN):
        with contextlib.suppress(OSError):
            found = os.get_terminal_size(descriptor)
            return found.lines, found.columns
    return 0, 0


@contextlib.contextmanager
def raw(descriptor: int) -> Iterator[None]:
    """Every key goes through unseen until the block ends; then the terminal is as it was. What was typed before is the
    container's too."""
    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor, termios.TCSANOW)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


class DetachKeys:
    """Looks for a sequence of keys in what is typed. Its beginning is held back until the next key decides."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """(what to pass on, whether the whole sequence was typed); nothing behind the sequence is passed on."""
        if not self._keys:
            return data, False
        out = bytearray()
        for byte in data:
            if byte == self._keys[self._held]:
                self._held += 1
                if self._held == len(self._keys):
                    self._held = 0
                    return bytes(out), True
                continue
            out += self._keys[: self._held]
            self._held = 1 if byte == self._keys[0] else 0
            if not self._held:
                out.append(byte)
        return bytes(out), False
