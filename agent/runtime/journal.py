"""A container's log in the host's journal, in systemd's native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL).

Lines are cut as `logfile` cuts them. A journal that is slow or being restarted never stops a container: what it does
not take waits here, as far as there is room, and of what is lost then the journal is told how many lines it was. What
waits is lost with the keeper, and a keeper that is killed between sending an entry and counting it sends it twice.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections import deque
from collections.abc import Mapping, Sequence

from agent.runtime.logfile import Batch, LogFile, pieces_of
from agent.runtime.mark import Mark

SOCKET = "/run/systemd/journal/socket"
_PRIORITY = {1: b"6", 2: b"3"}  # syslog(3): informational, error
_ROOM = 1 << 20


class Journal(LogFile):
    """Writes to the journal instead of a file; every entry has `fields`."""

    def __init__(self, fields: Mapping[str, str], *, mark: Mark | None = None, path: str = SOCKET) -> None:
        self._fields = b"".join(_field(name, os.fsencode(value)) for name, value in fields.items())
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        self._where = path
        self._waiting: deque[bytes] = deque()
        self._room = _ROOM
        self._lost = 0
        super().__init__("", 0, 1, mark=mark)

    def flush(self, time_ns: int) -> None:
        super().flush(time_ns)
        self._send_waiting()

    def close(self) -> None:
        self._socket.close()
        super().close()

    def _open(self) -> tuple[int, int, int]:
        return -1, 0, 0

    def _batch(self, stream: int, text: bytes, time_ns: int, skip: int) -> Batch:
        return self._piecemeal(stream, pieces_of(text), time_ns, skip)

    def _piecemeal(self, stream: int, pieces: Sequence[bytes], _time_ns: int, skip: int) -> Batch:
        head = self._fields + _field("PRIORITY", _PRIORITY[stream])
        entries = []
        for piece in pieces[skip:]:
            entry = head + _field("MESSAGE", piece.removesuffix(b"\n"))
            if not piece.endswith(b"\n"):
                entry += _field("CONTAINER_PARTIAL_MESSAGE", b"true")
            entries.append(entry)
        return Batch(entries, sum(map(len, pieces)))

    def _append(self, entries: Sequence[bytes | memoryview], skip: int) -> None:
        self._send_waiting()
        for number, entry in enumerate(entries, skip + 1):
            if self._waiting or not self._send(entry):
                self._wait(bytes(entry))
            self._mark.count(number)

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

    def _send(self, entry: bytes | memoryview) -> bool:
        with contextlib.suppress(OSError):  # it is full, or nobody listens just now
            self._socket.sendto(entry, self._where)
            return True
        return False


def _field(name: str, value: bytes) -> bytes:
    """Binary values are told by their length, others by the end of the line."""
    if b"\n" in value:
        return name.encode() + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"
    return name.encode() + b"=" + value + b"\n"
