"""A container's log in docker's json-file form: one JSON object per line, rotated by size.

Lines longer than 16 KiB are cut there, as docker does; a reader joins pieces that do not end in a newline. What is read
goes to the log in rounds, and a `mark` says how far, so that whoever is killed, every line is there once. A full disk
loses lines but never leaves half a one, and never stops the container.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from json.encoder import encode_basestring as quoted
from mmap import mmap
from pathlib import Path
from typing import NamedTuple

from agent.runtime import quoting
from agent.runtime.mark import ROOM as LINE_LIMIT
from agent.runtime.mark import Mark
from agent.runtime.quoting import Lines

# Takes so many bytes, which are logged now, out of where they were seen, and the last of them into a place.
Take = Callable[[int, memoryview], None]
_NAMES = {1: '"stdout"', 2: '"stderr"'}


def timestamp(time_ns: int) -> str:
    """RFC 3339 with nanoseconds, UTC."""
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    return f"{_second(seconds)}.{nanoseconds:09d}Z"


@lru_cache(maxsize=1)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def _tail(stream: int, time_ns: int) -> str:
    return f'"stream":{_NAMES[stream]},"time":"{timestamp(time_ns)}"}}\n'


def _long(text: bytes) -> bool:
    """Whether a line is longer than may be; there is none where every half of such a length has an end of line."""
    half = LINE_LIMIT // 2
    if all(text.find(b"\n", at, at + half) >= 0 for at in range(0, len(text) - half, half)):
        return False
    return max(map(len, text.split(b"\n"))) >= LINE_LIMIT


class Whole(NamedTuple):
    """A text whose whole lines are in JSON already."""

    stream: int
    text: bytes
    lines: Lines


class Batch(NamedTuple):
    """What one round logs: `blocks` of whole lines, which are the text up to `end`; further ones have to wait."""

    blocks: Sequence[bytes | memoryview]
    end: int


class LogFile:
    """Appends to `path`; keeps `path.1` … `path.N-1` besides it when `max_bytes` is reached (0: never)."""

    def __init__(
        self,
        path: str,
        max_bytes: int,
        max_files: int,
        *,
        mark: Mark | None = None,
        discard: Callable[[int], None] = os.close,
    ) -> None:
        """`discard` closes the descriptor of a file that is no more, which takes as long as the file was large."""
        self._path = path
        self._discard = discard
        self._max_bytes = max_bytes
        self._max_files = max(max_files, 1)
        self._mark = mark or Mark()
        self._fd, self._inode, self._size = self._open()
        self._ahead = 0  # bytes of rounds that have begun
        self._undone, self._skipped, self._began = self._resume()

    @property
    def fd(self) -> int:
        """Of the file that is written to now, or -1."""
        return self._fd

    @property
    def undone(self) -> int:
        """The stream whose last round a keeper before us did not end, or 0: it has to be written first."""
        return self._undone

    def write(self, stream: int, data: bytes, time_ns: int) -> None:
        """Log what came out of `stream` and is nowhere else: the keeper's death loses it rather than doubles it."""
        while data:
            batch, skip = self._begin(stream, data, time_ns)
            self._mark.end()
            self._append(batch.blocks, skip)
            data = data[batch.end :]

    def log(self, stream: int, data: bytes, time_ns: int, take: Take) -> int:
        """Log what is still in `stream`'s pipe, and `take` it from there as far as it is logged: whole lines, or when
        there are none, the beginning of one. Returns how much that was; come again for the rest."""
        batch, skip = self._begin(stream, data, time_ns)
        self._append(batch.blocks, skip)
        take(batch.end, self._mark.landing)
        self._mark.end()
        return batch.end

    def whole(self, stream: int, text: bytes, time_ns: int, memory: mmap) -> Whole | None:
        """`text` for `begin`, which may be called while a round is under way that lies in other memory; None for what
        only `log` can do."""
        if self._undone or self._fd < 0 or self._mark.rests[stream]:
            return None
        return _in_json(stream, text, time_ns, memory)

    def begin(self, whole: Whole) -> Batch:
        """A round of it that the caller writes to `fd`. Until it is `over`, there is no other but one that follows."""
        self._prepare(whole.stream)
        batch = self._cut(whole)
        self._mark.begin(whole.stream, whole.text[batch.end - 1], b"", self._from(0))
        self._ahead = len(batch.blocks[0])
        return batch

    def follow(self, whole: Whole) -> Batch | None:
        """As `begin`, while one is under way, behind which it is written. None where it must wait: the file is full."""
        if self._max_bytes and self._size + self._ahead >= self._max_bytes:
            return None
        batch = self._cut(whole)
        self._mark.follow(whole.stream, whole.text[batch.end - 1], (self._inode, self._size + self._ahead))
        self._ahead += len(batch.blocks[0])
        return batch

    def over(self, batch: Batch, written: int, take: Take) -> None:
        """So many bytes of it are written, and none behind them if it is torn."""
        self._ahead -= len(batch.blocks[0])
        self._count(batch.blocks, written)
        take(batch.end, self._mark.landing)
        self._mark.end()

    def flush(self, time_ns: int) -> None:
        """Log the lines that will never end."""
        for stream in sorted(self._mark.rests, key=lambda each: each != self._undone):
            skip = self._prepare(stream)
            if rest := self._mark.rests[stream]:
                batch = self._piecemeal(stream, [rest], time_ns, skip)
                self._mark.begin(stream, 0, b"", self._from(skip))
                self._append(batch.blocks, skip)
                self._mark.end()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._mark.close()

    def _begin(self, stream: int, data: bytes, time_ns: int) -> tuple[Batch, int]:
        """A round: as much as may go to one file. Its batch ends in `data`."""
        skip = self._prepare(stream)
        before = self._mark.rests[stream]
        batch = self._batch(stream, before + data, time_ns, skip)
        rest = b"" if batch.end else before + data
        end = batch.end - len(before) if batch.end else len(data)
        self._mark.begin(stream, data[end - 1], rest, self._from(skip), lines=skip)
        return batch._replace(end=end), skip

    def _resume(self) -> tuple[int, int, int]:
        """Of a round that was not ended: its stream, how many lines of it are logged, how large the log was before."""
        last = self._mark.round
        if last is None:
            return 0, 0, 0
        lines = self._logged_since(last.size) if self._fd >= 0 and last.inode == self._inode else last.lines
        return (0, 0, 0) if last.ended else (last.stream, lines, last.size)

    def _logged_since(self, size: int) -> int:
        """How many lines have come since; the torn one at the end, if there is one, is cut off."""
        with open(self._path, "rb") as file:  # noqa: PTH123 - strings all around
            file.seek(size)
            data = file.read()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            self._size = size + whole
            os.ftruncate(self._fd, self._size)
        return data.count(b"\n")

    def _prepare(self, stream: int) -> int:
        """Rotate the log if it is full, and tell how many lines of the round that begins now are logged already. Only
        the first round can have any: if it is another stream's, then the undone one's pipe is gone."""
        skip = self._skipped if stream == self._undone else 0
        self._undone = 0
        if self._max_bytes and self._size >= self._max_bytes and not skip:
            self._rotate()
        return skip

    def _from(self, skip: int) -> tuple[int, int]:
        """Which log a round goes to, and its size without any line of the round."""
        return self._inode, self._began if skip else self._size

    def _batch(self, stream: int, text: bytes, time_ns: int, skip: int) -> Batch:
        if not skip and (whole := _in_json(stream, text, time_ns, _memory())):
            return self._cut(whole)
        return self._piecemeal(stream, pieces_of(text), time_ns, skip)

    def _cut(self, whole: Whole) -> Batch:
        """As many lines as this file has room for, and one of them at least."""
        _, text, (block, size, end) = whole
        room = self._max_bytes - self._size - self._ahead
        if self._max_bytes and size >= room:
            full = block.find(b"\n", max(room - 1, 0), size) + 1
            if full < size:
                size, end = full, _after(text, block[:full].count(b"\n"))
        return Batch((memoryview(block)[:size],), end)

    def _piecemeal(self, stream: int, pieces: Sequence[bytes], time_ns: int, skip: int) -> Batch:
        tail = "," + _tail(stream, time_ns)
        lines: list[bytes] = []
        length = end = 0
        for number, piece in enumerate(pieces):
            if number >= skip:
                if self._max_bytes and self._size + length >= self._max_bytes:
                    break
                lines.append(('{"log":' + quoted(piece.decode("utf-8", "replace")) + tail).encode())
                length += len(lines[-1])
            end += len(piece)
        return Batch((b"".join(lines),), end)

    def _append(self, blocks: Sequence[bytes | memoryview], _skip: int) -> None:
        if self._fd < 0:
            return
        try:
            written = os.writev(self._fd, blocks)
        except OSError:
            return  # a full disk, a quota: these lines are lost
        self._count(blocks, written)

    def _count(self, blocks: Sequence[bytes | memoryview], written: int) -> None:
        """So many bytes of them came to the log; a torn line goes."""
        if not written:
            return
        if written < sum(map(len, blocks)):
            complete = b"".join(blocks).rfind(b"\n", 0, written) + 1
            os.ftruncate(self._fd, self._size + complete)
            written = complete
        self._size += written

    def _rotate(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        gone = []
        oldest = self._oldest()
        with contextlib.suppress(OSError):
            with contextlib.suppress(FileNotFoundError):
                gone.append(os.open(self._name(oldest), os.O_RDONLY | os.O_CLOEXEC))
                # Before one comes in its place: to replace a file has ext4 write out the new one, there and then. A
                # reader that follows keeps the old one.
                os.unlink(self._name(oldest))  # noqa: PTH108 - strings all around
            for number in range(oldest, 0, -1):
                with contextlib.suppress(FileNotFoundError):
                    os.rename(self._name(number - 1), self._name(number))  # noqa: PTH104 - strings all around
        for fd in gone:
            self._discard(fd)
        self._fd, self._inode, self._size = self._open()

    def _name(self, number: int) -> str:
        return f"{self._path}.{number}" if number else self._path

    def _oldest(self) -> int:
        """The number that the oldest file which stays comes to have: one that is free, as after a rotation that was cut
        short, or the last one."""
        numbers = range(1, self._max_files)
        return next((number for number in numbers if not Path(self._name(number)).exists()), len(numbers))

    def _open(self) -> tuple[int, int, int]:
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError:
            return -1, 0, 0  # no log without its directory; the container runs all the same
        status = os.fstat(fd)
        return fd, status.st_ino, status.st_size


@lru_cache(maxsize=1)
def _memory() -> mmap:
    """For rounds that are over when they have begun: one at a time, since all logs are of the loop's thread."""
    return quoting.room()


def _in_json(stream: int, text: bytes, time_ns: int, memory: mmap) -> Whole | None:
    """All whole lines at once, which is many times as fast as one by one; None where that cannot be."""
    if b"\n" not in text or _long(text):
        return None
    before, after = b'{"log":"', b'\\n",' + _tail(stream, time_ns).encode()
    found = quoting.lines(text, before, after, memory)
    return None if found is None else Whole(stream, text, found)


def pieces_of(text: bytes) -> list[bytes]:
    """Its lines, none longer than may be; what is left is the beginning of one."""
    pieces = []
    at = 0
    while (end := text.find(b"\n", at, at + LINE_LIMIT)) >= 0 or len(text) - at >= LINE_LIMIT:
        stop = end + 1 if end >= 0 else at + LINE_LIMIT
        pieces.append(text[at:stop])
        at = stop
    return pieces


def _after(lines: bytes, count: int) -> int:
    """Where the first `count` lines end."""
    at = 0
    for _ in range(count):
        at = lines.index(b"\n", at) + 1
    return at
