"""A flow: one container's output while it comes faster than it is logged. One round is being written while the next one
is made of what stands behind it in the pipe.

Otherwise its rounds are as any: there is one at a time, and it leaves the pipe when it is written. There is one flow
for all containers; what else has much to say is logged as usual, so that the memory of two rounds is all that it takes.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from agent.kernel import aio
from agent.runtime import quoting
from agent.runtime.logfile import Batch, LogFile, Whole
from agent.runtime.tap import Tap

LEAST = 128 * 1024  # of a round: a smaller one is written before another thread has begun


class _Round(NamedTuple):
    """`written` of its bytes are, at once; `write` brings the others, unless the disk has had enough."""

    log: LogFile
    fd: int
    whole: Whole
    batch: Batch
    written: int
    write: aio.Write | None


class Flow:
    """Owned by the loop's thread. `tap` is there for whoever does not flow."""

    def __init__(self, tap: Tap, *, write: Callable[[int, bytes | bytearray, int], aio.Write] = aio.Write) -> None:
        self.tap = tap
        self._begin_write = write
        self._round: _Round | None = None
        self._rooms = [quoting.room(), quoting.room()]  # of the round that was begun last, and for the next

    @property
    def fd(self) -> int:
        """Whose output flows, or -1: `go_on` when it is readable, and `end` before anything else is done with it or its
        log."""
        return -1 if self._round is None else self._round.fd

    def begin(self, log: LogFile, fd: int, stream: int, data: bytes) -> bool:
        """Whether `data`, which is what `fd` holds, flows; nothing of it is taken yet."""
        if self._round is not None or not aio.AVAILABLE:
            return False
        whole = self._whole(log, stream, data)
        if whole is not None:
            self._write(log, fd, whole)
        return whole is not None

    def go_on(self) -> tuple[bytes, int]:
        """As `end`, and another round begins if there is enough for it."""
        now = self._under_way()
        ahead = None
        with contextlib.suppress(BlockingIOError):
            ahead = self._whole(now.log, now.whole.stream, self.tap.peek(now.fd, now.batch.end))
        said = self.end()
        if ahead is not None:
            self._write(now.log, now.fd, ahead)
        return said

    def end(self) -> tuple[bytes, int]:
        """End a round: of this text, so much is logged and taken."""
        now, self._round = self._under_way(), None
        written = now.written
        if now.write is not None:
            with contextlib.suppress(OSError):  # a full disk, a quota: these lines are lost
                written += now.write.wait()
        now.log.over(now.batch, written, partial(self.tap.take, now.fd))
        return now.whole.text, now.batch.end

    def _under_way(self) -> _Round:
        assert self._round is not None
        return self._round

    def _whole(self, log: LogFile, stream: int, data: bytes) -> Whole | None:
        return log.whole(stream, data, time.time_ns(), self._rooms[1]) if len(data) >= LEAST else None

    def _write(self, log: LogFile, fd: int, whole: Whole) -> None:
        batch = log.begin(whole)
        self._rooms.reverse()
        written, write = 0, None
        [block] = batch.blocks
        try:
            write = self._begin_write(log.fd, whole.lines.block, len(block))
        except OSError:  # there is no thread to be had
            with contextlib.suppress(OSError):  # as at the end
                written = os.write(log.fd, block)
        self._round = _Round(log, fd, whole, batch, written, write)
