"""A container's log in the host's journal, in systemd's native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL).

Lines are cut as `logfile` cuts them. A journal that is slow or being restarted never stops a container: what it does
not take waits here, as far as there is room, and of what is lost then the journal is told how many lines it was.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections import deque
from collections.abc import Mapping

from agent.runtime.logfile import LogFile

SOCKET = "/run/systemd/journal/socket"
_PRIORITY = {1: b"6", 2: b"3"}  # syslog(3): informational, error
_ROOM = 1 << 20


class Journal(LogFile):
    """Writes to the journal instead of a file; every entry has `fields`."""

    def __init__(self, fields: Mapping[str, str], *, partials: str = "", path: str = SOCKET) -> None:
        self._fields = b"".join(_field(name, os.fsencode(value)) for name, value in fields.items())
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        self._where = path
        self._waiting: deque[bytes] = deque()
        self._room = _ROOM
        self._lost = 0
        super().__init__("", 0, 1, partials=partials)

    def close(self) -> None:
        self._send_waiting()
        self._socket.close()
        super().close()

    def _open(self) -> tuple[int, int]:
        return -1, 0

    def _log_whole(self, *_: object) -> bool:
        return False

    def _log(self, stream: int, pieces: list[bytes], _time_ns: int) -> None:
        self._send_waiting()
        for piece in pieces:
            entry = self._fields + _field("PRIORITY", _PRIORITY[stream]) + _field("MESSAGE", piece.removesuffix(b"\n"))
            if not piece.endswith(b"\n"):
                entry += _field("CONTAINER_PARTIAL_MESSAGE", b"true")
            if self._waiting or not self._send(entry):
                self._wait(entry)

    def _wait(self, entry: bytes) -> None:
        if len(entry) > self._room:
            self._lost += 1
            return
        self._room -= len(entry)
        self._waiting.append(entry)

    def _send_waiting(self) -> None:
        while self._waiting and self._send(self._waiting[0]):
            self._room += len(self._waiting.popleft())
        if self._lost and not self._waiting:
            told = f"{self._lost} lines of the container are lost: the journal did not take them"
            if self._send(self._fields + _field("PRIORITY", b"4") + _field("MESSAGE", told.encode())):
                self._lost = 0

    def _send(self, entry: bytes) -> bool:
        with contextlib.suppress(OSError):  # it is full, or nobody listens just now
            self._socket.sendto(entry, self._where)
            return True
        return False


def _field(name: str, value: bytes) -> bytes:
    """Binary values are told by their length, others by the end of the line."""
    if b"\n" in value:
        return name.encode() + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"
    return name.encode() + b"=" + value + b"\n"
