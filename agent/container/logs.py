"""Logs: reads what the keeper wrote of a container's output: json-file lines, rotated files, tail, follow.

The keeper renames `x.log` to `x.log.1`, `x.log.1` to `x.log.2`…; a reader keeps the file that it reads open and goes
on with the next newer one, found by its inode, so that nothing is lost or read twice. No event says that a line
was written, so following polls, faster while something comes and never slower than every 100 ms.
"""

from __future__ import annotations

import asyncio
import calendar
import functools
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec

from shoal.clock import Clock

_BATCH_BYTES = 256 << 10
_SHORTEST_WAIT_S, _LONGEST_WAIT_S = 0.005, 0.1


class LogLine(msgspec.Struct, frozen=True, gc=False):
    """One write of the container, at most 16 KiB, with its newline when it had one."""

    at_ns: int
    stderr: bool
    data: bytes


class Window(msgspec.Struct, frozen=True):
    """Which lines: the last `tail` (None: all), of these those from `since_ns` to `until_ns` (0: no bound)."""

    tail: int | None = None
    since_ns: int = 0
    until_ns: int = 0


class _Entry(msgspec.Struct, gc=False):
    log: str = ""
    stream: str = ""
    time: str = ""


_decoder = msgspec.json.Decoder(_Entry)
_several = msgspec.json.Decoder(list[_Entry])


async def batches(
    path: Path, window: Window, *, clock: Clock, following: Callable[[], bool]
) -> AsyncIterator[list[LogLine]]:
    """The lines, oldest first, as they can be had; then, for as long as `following()`, what is written meanwhile.

    Never an empty batch. The end comes when a look at the file, begun after `following()` said no, finds nothing.
    """
    reader = await asyncio.to_thread(_Reader, path, window.tail)
    wait_s = _SHORTEST_WAIT_S
    try:
        while True:
            more = following()
            raw = await asyncio.to_thread(reader.read) if reader.behind() else []
            lines = _parsed(raw)
            if window.since_ns:
                lines = [line for line in lines if line.at_ns >= window.since_ns]
            past = bool(window.until_ns) and any(line.at_ns > window.until_ns for line in lines)
            if past:
                lines = [line for line in lines if line.at_ns <= window.until_ns]
            if lines:
                yield lines
            if past:
                return
            if raw:
                wait_s = _SHORTEST_WAIT_S
            elif not more or 0 < window.until_ns < clock.now_ns():
                return
            else:
                await clock.sleep(wait_s)
                wait_s = min(wait_s * 2, _LONGEST_WAIT_S)
    finally:
        reader.close()


class _Reader:
    """Whole lines of a log and its rotated files. `read` blocks on the disk; `behind` costs a stat."""

    def __init__(self, path: Path, tail: int | None) -> None:
        self._path = path
        self._rest = b""
        self._descriptor = -1
        self._inode = 0
        files = self._files()
        if tail is None:
            self._open(files[0])
        else:
            self._seek_back(files, tail)

    def behind(self) -> bool:
        """Whether there may be something to read."""
        if self._descriptor < 0:
            return True
        if os.fstat(self._descriptor).st_size > os.lseek(self._descriptor, 0, os.SEEK_CUR):
            return True
        try:
            return self._path.stat().st_ino != self._inode
        except FileNotFoundError:
            return False

    def read(self) -> list[bytes]:
        """The next lines; none when there is nothing new."""
        while True:
            if self._descriptor < 0:
                self._open(self._files()[0])
                if self._descriptor < 0:
                    return []
            data = os.read(self._descriptor, _BATCH_BYTES)
            if data:
                lines = (self._rest + data).split(b"\n")
                self._rest = lines.pop()
                if lines:
                    return lines
                continue
            newer = self._newer()
            # The writer may have added to the old file between our read and its rename.
            if newer is None or os.fstat(self._descriptor).st_size > os.lseek(self._descriptor, 0, os.SEEK_CUR):
                return []
            self._open(newer)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _files(self) -> list[Path]:
        """Oldest first; the current one is always among them."""
        rotated = []
        number = 1
        while (each := self._path.with_name(f"{self._path.name}.{number}")).exists():
            rotated.append(each)
            number += 1
        return [*reversed(rotated), self._path]

    def _newer(self) -> Path | None:
        """The file after the one that is open, None while that is the current one or a rotation is going on."""
        files = self._files()
        for place, each in enumerate(files):
            try:
                if each.stat().st_ino == self._inode:
                    return files[place + 1] if place + 1 < len(files) else None
            except FileNotFoundError:
                return None
        return files[0]

    def _open(self, path: Path) -> None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        self.close()
        self._descriptor, self._rest = descriptor, b""
        self._inode = os.fstat(descriptor).st_ino

    def _seek_back(self, files: list[Path], tail: int) -> None:
        """Open the file that holds the `tail`th line from the end, at that line."""
        left = tail
        for path in reversed(files):
            self._open(path)
            if self._descriptor < 0:
                continue
            offset, left = _offset_of_last(self._descriptor, left)
            os.lseek(self._descriptor, offset, os.SEEK_SET)
            if left == 0:
                return


def _offset_of_last(descriptor: int, lines: int) -> tuple[int, int]:
    """Where the last `lines` lines begin, and how many of them this file lacks."""
    end = os.fstat(descriptor).st_size
    if lines == 0:
        return end, 0
    position, newlines = end, 0
    while position > 0:
        size = min(_BATCH_BYTES, position)
        position -= size
        block = os.pread(descriptor, size, position)
        # The newline at the very end closes the last line; the one before the lines begins them.
        found = block.count(b"\n")
        if newlines + found > lines:
            at = len(block)
            for _ in range(lines + 1 - newlines):
                at = block.rindex(b"\n", 0, at)
            return position + at + 1, 0
        newlines += found
    return 0, lines - newlines


def _parsed(raw: list[bytes]) -> list[LogLine]:
    """All at once, which is many times as fast; one by one where a crash has torn one, which is left out."""
    try:
        return list(map(_line, _several.decode(b"[" + b",".join(raw) + b"]")))
    except (msgspec.MsgspecError, ValueError):
        return [line for line in map(_parse, raw) if line is not None]


def _parse(raw: bytes) -> LogLine | None:
    """None for a line that a crash has torn."""
    try:
        return _line(_decoder.decode(raw))
    except (msgspec.MsgspecError, ValueError):
        return None


def _line(entry: _Entry) -> LogLine:
    return LogLine(_time_ns(entry.time), entry.stream == "stderr", entry.log.encode("utf-8", "surrogatepass"))


@functools.lru_cache(maxsize=64)  # what the keeper read together has one time
def _time_ns(text: str) -> int:
    """RFC 3339 with up to nine digits of a second, UTC as the keeper writes it."""
    seconds, _, fraction = text.removesuffix("Z").partition(".")
    return _seconds(seconds) * 10**9 + int(fraction[:9].ljust(9, "0"))


@functools.lru_cache(maxsize=64)
def _seconds(text: str) -> int:
    return calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
