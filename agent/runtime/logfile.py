"""A container's log in docker's json-file form: one JSON object per line, rotated by size.

Lines longer than 16 KiB are cut there, as docker does; a reader joins pieces that do not end in a newline. The piece of
a line that has not ended yet is kept in a small file of its own, so that a keeper's crash does not lose it. A full disk
loses lines but never leaves half a one, and never stops the container.
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
from json.encoder import encode_basestring as quoted

LINE_LIMIT = 16 * 1024
_NAMES = {1: '"stdout"', 2: '"stderr"'}
_LENGTH = struct.Struct("<I")
# What stands in JSON as it is, and the end of a line.
_PLAIN = bytes({*range(0x20, 0x80)} - set(b'"\\')) + b"\n"
# What does not, the backslash first: the others' escapes have one.
_ESCAPES = {bytes((each,)): quoted(chr(each))[1:-1].encode() for each in b'\\"' + bytes(range(0x20)) if each != 0x0A}


def timestamp(time_ns: int) -> str:
    """RFC 3339 with nanoseconds, UTC."""
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{nanoseconds:09d}Z"


def _tail(stream: int, time_ns: int) -> str:
    return f'"stream":{_NAMES[stream]},"time":"{timestamp(time_ns)}"}}\n'


def _long(lines: bytes) -> bool:
    """Whether one of them is longer than may be; there is none where every half of such a length has an end of line."""
    half = LINE_LIMIT // 2
    if all(lines.find(b"\n", at, at + half) >= 0 for at in range(0, len(lines) - half, half)):
        return False
    return max(map(len, lines.split(b"\n"))) >= LINE_LIMIT


def _escaped(lines: bytes) -> bytes | None:
    """In JSON, but for the ends of lines; None for what is no UTF-8."""
    odd = lines.translate(None, _PLAIN)
    if not odd.isascii():
        try:
            lines.decode()
        except UnicodeDecodeError:
            return None
    for byte, escape in _ESCAPES.items() if odd else ():
        if byte in odd:
            lines = lines.replace(byte, escape)
    return lines


class LogFile:
    """Appends to `path`; keeps `path.1` … `path.N-1` besides it when `max_bytes` is reached (0: never)."""

    def __init__(self, path: str, max_bytes: int, max_files: int, *, partials: str = "") -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._max_files = max(max_files, 1)
        self._partials = partials
        self._fd, self._size = self._open()
        self._pending = {stream: self._load(stream) for stream in _NAMES}
        self._kept = dict.fromkeys(_NAMES, -1)

    def write(self, stream: int, data: bytes, time_ns: int) -> None:
        """Log what came out of `stream`."""
        data = self._pending[stream] + data
        end = data.rfind(b"\n") + 1
        if self._log_whole(stream, data[:end], time_ns):
            data = data[end:]
        pieces = []
        at = 0
        while (end := data.find(b"\n", at, at + LINE_LIMIT)) >= 0 or len(data) - at >= LINE_LIMIT:
            stop = end + 1 if end >= 0 else at + LINE_LIMIT
            pieces.append(data[at:stop])
            at = stop
        self._pending[stream] = data[at:]
        self._log(stream, pieces, time_ns)
        self._keep(stream)

    def flush(self, time_ns: int) -> None:
        """Log the lines that will never end."""
        for stream, rest in self._pending.items():
            if rest:
                self._pending[stream] = b""
                self._log(stream, [rest], time_ns)
                self._keep(stream)

    def close(self) -> None:
        for fd in (self._fd, *self._kept.values()):
            if fd >= 0:
                os.close(fd)
        self._fd = -1
        self._kept = dict.fromkeys(_NAMES, -1)

    def _log_whole(self, stream: int, lines: bytes, time_ns: int) -> bool:
        """Log whole lines at once, which is many times as fast as one by one; False where that cannot be: a line is
        too long or no text, or the file would become too large on the way."""
        if not lines or _long(lines):
            return False
        text = _escaped(lines)
        if text is None:
            return False
        before, after = b'{"log":"', b'\\n",' + _tail(stream, time_ns).encode()
        block = text.replace(b"\n", after + before)  # begins without what every line but the first has before it
        if self._max_bytes and self._size + len(block) >= self._max_bytes:
            return False
        self._append(before, memoryview(block)[: -len(before)])
        return True

    def _log(self, stream: int, pieces: list[bytes], time_ns: int) -> None:
        if not pieces:
            return
        tail = "," + _tail(stream, time_ns)
        batch: list[bytes] = []
        length = 0
        for piece in pieces:
            line = ('{"log":' + quoted(piece.decode("utf-8", "replace")) + tail).encode()
            if self._max_bytes and self._size + length >= self._max_bytes:
                self._append(b"".join(batch))
                batch, length = [], 0
                self._rotate()
            batch.append(line)
            length += len(line)
        self._append(b"".join(batch))

    def _append(self, *pieces: bytes | memoryview) -> None:
        if not pieces or self._fd < 0:
            return
        try:
            written = os.writev(self._fd, pieces)
        except OSError:
            return  # a full disk, a quota: these lines are lost
        if written < sum(map(len, pieces)):
            complete = b"".join(pieces).rfind(b"\n", 0, written) + 1
            os.ftruncate(self._fd, self._size + complete)
            written = complete
        self._size += written

    def _rotate(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        with contextlib.suppress(OSError):
            if self._max_files == 1:
                os.unlink(self._path)  # noqa: PTH108 - a reader that follows keeps the old file
            for number in range(self._max_files - 1, 0, -1):
                older = f"{self._path}.{number - 1}" if number > 1 else self._path
                with contextlib.suppress(FileNotFoundError):
                    os.replace(older, f"{self._path}.{number}")  # noqa: PTH105 - strings all around
        self._fd, self._size = self._open()

    def _open(self) -> tuple[int, int]:
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError:
            return -1, 0  # no log without its directory; the container runs all the same
        return fd, os.fstat(fd).st_size

    def _keep(self, stream: int) -> None:
        """Note the unfinished line. Written only when there is one, or was one."""
        rest = self._pending[stream]
        if not self._partials or (not rest and self._kept[stream] < 0):
            return
        with contextlib.suppress(OSError):
            if self._kept[stream] < 0:
                self._kept[stream] = os.open(
                    f"{self._partials}.{stream}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600
                )
            os.pwrite(self._kept[stream], _LENGTH.pack(len(rest)) + rest, 0)

    def _load(self, stream: int) -> bytes:
        if not self._partials:
            return b""
        try:
            fd = os.open(f"{self._partials}.{stream}", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return b""
        with open(fd, "rb", buffering=0) as file:  # noqa: PTH123 - a descriptor
            data = file.read()
        return data[4 : 4 + _LENGTH.unpack_from(data)[0]] if len(data) >= 4 else b""
