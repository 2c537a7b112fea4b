"""QMP: what QEMU is told while it runs, over the socket in its machine's folder; JSON, one message a line."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec

from shoal.errors import ShoalError, Unavailable

_ANSWER_S = 10.0
_MOST_BYTES = 1 << 20


class _Error(msgspec.Struct):
    desc: str


class _Message(msgspec.Struct):
    """A greeting and an event have neither."""

    result: dict[str, object] | None = msgspec.field(name="return", default=None)
    error: _Error | None = None


class Qmp:
    """One connection; QEMU takes one at a time."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._read = bytearray()

    def execute(self, command: str) -> None:
        """Raises ShoalError where QEMU refuses it, Unavailable where it is no longer there."""
        self._link.sendall(msgspec.json.encode({"execute": command}) + b"\n")
        while True:
            message = msgspec.json.decode(self._line(), type=_Message)
            if message.error is not None:
                raise ShoalError(f"QEMU refuses {command}: {message.error.desc}")
            if message.result is not None:
                return

    def _line(self) -> bytes:
        while b"\n" not in self._read:
            data = self._link.recv(1 << 16)
            if not data or len(self._read) > _MOST_BYTES:
                raise Unavailable("QEMU ended the connection")
            self._read += data
        line, _, rest = bytes(self._read).partition(b"\n")
        self._read = bytearray(rest)
        return line


@contextlib.contextmanager
def dial(path: Path) -> Iterator[Qmp]:
    """Raises Unavailable where nobody answers."""
    # By a descriptor of the folder: a socket's whole path may be too long (unix(7)).
    with contextlib.ExitStack() as held:
        link = held.enter_context(socket.socket(socket.AF_UNIX))
        link.settimeout(_ANSWER_S)
        try:
            folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            held.callback(os.close, folder)
            link.connect(f"/proc/self/fd/{folder}/{path.name}")
            qmp = Qmp(link)
            qmp.execute("qmp_capabilities")
            yield qmp
        except (OSError, msgspec.MsgspecError) as error:
            raise Unavailable(f"QEMU at {path} does not answer: {error}") from error


def answers(path: Path) -> bool:
    try:
        with dial(path):
            return True
    except Unavailable:
        return False
