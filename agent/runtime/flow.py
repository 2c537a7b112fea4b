"""A flow: one container's output while it comes faster than it is logged. One round is being written while the next one
is made of what stands behind it in the pipe, and goes to whoever writes before that one is over: the disk never waits.

Otherwise its rounds are as any: one after the other ends, and leaves the pipe when it is written. There is one flow for
all containers; what else has much to say is logged as usual, so that the memory of two rounds is all that it takes.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from mmap import mmap
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

    def finished(self) -> int:
        """How many bytes of it are written; no more will be."""
        written = self.written
        if self.write is not None:
            with contextlib.suppress(OSError):  # a full disk, a quota: these lines are lost
                written += self.write.wait()
        return written


class Flow:
    """Owned by the loop's thread. `tap` is there for whoever does not flow."""

    def __init__(self, tap: Tap, *, write: Callable[[int, bytes | mmap, int], aio.Write] = aio.Write) -> None:
        self.tap = tap
        self._begin_write = write
        self._rounds: deque[_Round] = deque()
        self._rooms = [quoting.room(), quoting.room()]  # of the round that was begun last, and for the next

    @property
    def fd(self) -> int:
        """Whose output flows, or -1: `go_on` when it is readable, and `end` before anything else is done with it or its
        log."""
        return self._rounds[0].fd if self._rounds else -1

    def begin(self, log: LogFile, fd: int, stream: int, data: bytes) -> bool:
        """Whether `data`, which is what `fd` holds, flows; nothing of it is taken yet."""
        if self._rounds or not aio.AVAILABLE:
            return False
        whole = self._whole(log, stream, data)
        if whole is not None:
            self._write(log, fd, whole, log.begin(whole))
        return whole is not None

    def go_on(self) -> tuple[bytes, int]:
        """As `end`, and another round begins if there is enough for it."""
        now = self._rounds[-1]
        ahead = None
        with contextlib.suppress(BlockingIOError):
            ahead = self._whole(now.log, now.whole.stream, self.tap.peek(now.fd, now.batch.end))
        batch = now.log.follow(ahead) if ahead is not None else None
        if ahead is not None and batch is not None:
            self._write(now.log, now.fd, ahead, batch)
        said = self.end()
        if ahead is not None and batch is None:
            self._write(now.log, now.fd, ahead, now.log.begin(ahead))
        return said

    def end(self) -> tuple[bytes, int]:
        """End the oldest round: of this text, so much is logged and taken."""
        now = self._rounds.popleft()
        written = now.finished()
        if 0 < written < len(now.batch.blocks[0]) and self._rounds:
            self._rounds[0].finished()
            self._rounds[0] = self._rounds[0]._replace(written=0, write=None)  # what is behind a torn line goes with it
        now.log.over(now.batch, written, partial(self.tap.take, now.fd))
        return now.whole.text, now.batch.end

    def _whole(self, log: LogFile, stream: int, data: bytes) -> Whole | None:
        return log.whole(stream, data, time.time_ns(), self._rooms[1]) if len(data) >= LEAST else None

    def _write(self, log: LogFile, fd: int, whole: Whole, batch: Batch) -> None:
        self._rooms.reverse()
        written, write = 0, None
        [block] = batch.blocks
        try:
            write = self._begin_write(log.fd, whole.lines.block, len(block))
        except OSError:  # there is no thread to be had
            for each in self._rounds:
                each.finished()
            with contextlib.suppress(OSError):  # as at the end
                written = os.write(log.fd, block)
        self._rounds.append(_Round(log, fd, whole, batch, written, write))
