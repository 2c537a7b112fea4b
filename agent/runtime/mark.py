"""A mark: how far one container's output has come into its log, true at whatever instant its keeper is killed.

Output stays in the container's pipe until it is logged (`tap`). Before a round is logged the mark says where it goes to
and what its last byte is; that byte lands here by the very system call that takes the round out of the pipe. So the
next keeper knows whether the pipe still has what the log has already, and `logfile` leaves that out. A round may be on
its way to the log while the one before it is; then it is the one before that has not ended, and its lines are counted
with those.

The page is memory shared with a file in the container's directory, on a tmpfs: it needs neither the keeper nor the
holder, and no system call but for an unfinished line. It says nothing after a reboot, when the pipe is gone as well.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
from pathlib import Path
from typing import NamedTuple

ROOM = 16 * 1024  # for an unfinished line; it is shorter
_STREAMS = (1, 2)
_PAGE = 4096
# One round: its stream, its last byte, where that lands, its number, lines that are known to be logged, the log's inode
# and size before it, the unfinished lines before it, and that of its own stream after it. The first byte of the page
# says which of two is the current one: the other can be written in peace. Once the current one has ended, the other is
# it if it has the next number, which it therefore gets last.
_ROUND = struct.Struct("=BBBBIQQ3H")
_PLACES = (64, 128)
_LANDING, _NUMBER, _LINES = 2, 3, 4
_COUNT = struct.Struct("=I")


class Round(NamedTuple):
    """The last one that was begun. `ended`: it was logged and is no longer in the pipe."""

    stream: int
    inode: int
    size: int
    lines: int
    ended: bool


class Mark:
    """Owned by the loop's thread. Without a path, or where the file cannot be had, it is this process's only."""

    def __init__(self, path: str = "") -> None:
        self._path = path
        self._page: mmap.mmap | None = None
        self._landings: list[memoryview] = []
        self._current = 0
        self._number = 0
        self._last_byte = 0
        self._next_last_byte: int | None = None  # of the round that follows
        self._kept = dict.fromkeys(_STREAMS, 0)  # where an unfinished line is: which of two places, and its length
        self.rests = dict.fromkeys(_STREAMS, b"")  # the unfinished lines
        self.round: Round | None = None
        if path:
            self._load()

    def begin(self, stream: int, last: int, rest: bytes, log: tuple[int, int], *, lines: int = 0) -> None:
        """A round of `stream` begins, which ends with the byte `last` and leaves `rest` unfinished; `log` are the
        inode and the size of what it goes to. It has ended when that byte is in `landing`."""
        self._write(stream, last, rest, log, lines)
        self._turn(last)

    def follow(self, stream: int, last: int, log: tuple[int, int]) -> None:
        """As `begin`, of one without rests that is written behind the one before, which has not ended: when that does,
        this is the round that there is."""
        self._write(stream, last, b"", log, 0)
        self._next_last_byte = last

    def _write(self, stream: int, last: int, rest: bytes, log: tuple[int, int], lines: int) -> None:
        page = self._page or self._make()
        kept = self._keep(stream, rest)
        at = _PLACES[1 - self._current]
        fields = (self._number, lines, *log, *self._kept.values(), kept)
        _ROUND.pack_into(page, at, stream, last, last ^ 0xFF, *fields)
        page[at + _NUMBER] = (self._number + 1) & 0xFF
        self._kept[stream], self.rests[stream] = kept, rest

    def _turn(self, last: int) -> None:
        """The round that was written last is the current one."""
        self._current, self._last_byte = 1 - self._current, last
        self._number = (self._number + 1) & 0xFF
        if self._page is not None:
            self._page[0] = self._current

    @property
    def landing(self) -> memoryview:
        return self._landings[self._current]

    def count(self, lines: int) -> None:
        """So many lines of the round are logged, as far as the log itself cannot tell."""
        _COUNT.pack_into(self._page or self._make(), _PLACES[self._current] + _LINES, lines)

    def end(self) -> None:
        """The round has ended, whatever came out of the pipe."""
        self._landings[self._current][0] = self._last_byte
        if self._next_last_byte is not None:
            self._turn(self._next_last_byte)
            self._next_last_byte = None

    def close(self) -> None:
        for landing in self._landings:
            landing.release()
        self._landings = []
        if self._page is not None:
            self._page.close()
            self._page = None

    def _load(self) -> None:
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        with open(fd, "rb", buffering=0) as file:  # noqa: PTH123 - a descriptor
            self._recall(self._map(mmap.mmap(fd, _PAGE)), file.fileno())

    def _recall(self, page: mmap.mmap, fd: int) -> None:
        self._current = page[0]
        stream, last, landed, number, *_ = _ROUND.unpack_from(page, _PLACES[self._current])
        other, at = 1 - self._current, _PLACES[1 - self._current]
        if landed != last ^ 0xFF and page[at] and page[at + _NUMBER] == (number + 1) & 0xFF:
            self._current = other
        stream, last, landed, number, lines, inode, size, *kept, after = _ROUND.unpack_from(
            page, _PLACES[self._current]
        )
        ended = landed != last ^ 0xFF
        self._last_byte, self._number = last, number
        self._kept = dict(zip(_STREAMS, kept, strict=True))
        if stream and ended:
            self._kept[stream] = after
        for each, place in self._kept.items():
            self.rests[each] = os.pread(fd, place % ROOM, _rest_at(each, place))
        if stream:
            self.round = Round(stream, inode, size, lines, ended)

    def _make(self) -> mmap.mmap:
        """Of zeros, which tell of no round. The file comes under its name when it has its size."""
        new = self._path and f"{self._path}.new"
        created = _created(new)
        if created is not None:
            with contextlib.suppress(OSError):
                Path(new).rename(self._path)
        return self._map(created or mmap.mmap(-1, _PAGE))

    def _map(self, page: mmap.mmap) -> mmap.mmap:
        self._page = page
        view = memoryview(page)
        self._landings = [view[at + _LANDING : at + _LANDING + 1] for at in _PLACES]
        view.release()
        return page

    def _keep(self, stream: int, rest: bytes) -> int:
        """Write an unfinished line where the one before it is not."""
        place = (ROOM - self._kept[stream] // ROOM * ROOM) | len(rest)
        if rest and self._path:
            with contextlib.suppress(OSError), open(self._path, "r+b", buffering=0) as file:  # noqa: PTH123 - each line's cost
                os.pwrite(file.fileno(), rest, _rest_at(stream, place))
        return place


def _created(path: str) -> mmap.mmap | None:
    """None without a path, and when the tmpfs is full: found out by a write to the page, that would be a signal."""
    if path:
        with contextlib.suppress(OSError), open(path, "w+b", buffering=0) as file:  # noqa: PTH123 - strings all around
            os.posix_fallocate(file.fileno(), 0, _PAGE)
            return mmap.mmap(file.fileno(), _PAGE)
    return None


def _rest_at(stream: int, place: int) -> int:
    return _PAGE + ((stream - 1) * 2 + place // ROOM) * ROOM
