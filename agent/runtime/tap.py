"""A tap on containers' pipes: shows what is in one without taking it, and takes it once it is logged.

A pipe can be looked into because tee(2) copies references to its pages, not bytes. A terminal cannot: what was read of
one and not yet logged is lost with the keeper. Of a pipe that its container has made one of packets (O_DIRECT), what
follows the last end of line in a packet may be lost.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os

CHUNK = 384 * 1024  # with its text in JSON, this still fits the cache of a processor
_SPLICE_F_NONBLOCK = 2
_WASTE = 16 * 1024
# Called for each line of some containers: `syscalls.call`, which can make any call, takes three times as long.
_tee = ctypes.CDLL(None, use_errno=True).tee
_tee.argtypes, _tee.restype = [ctypes.c_int, ctypes.c_int, ctypes.c_size_t, ctypes.c_uint], ctypes.c_ssize_t


class Tap:
    """One for all containers. Owned by the loop's thread."""

    def __init__(self) -> None:
        self._out, self._in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._in, fcntl.F_SETPIPE_SZ, 2 * CHUNK)  # for what is peeked at and what is before it
        self._nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        # Written once, so that its pages are there: read(2) takes all that it was asked for, or nothing.
        self._waste = memoryview(bytearray(b"-" * _WASTE))

    def peek(self, fd: int, behind: int = 0, chunks: int = 1) -> bytes:
        """What is in the pipe `fd` behind so many bytes, as far as so many `chunks`, of which there are two in all; b""
        at its end, or when there is no more than those bytes. Raises BlockingIOError when there is nothing now."""
        size = _tee(fd, self._in, behind + chunks * CHUNK, _SPLICE_F_NONBLOCK)
        if size < 0:
            raise OSError(ctypes.get_errno(), f"tee: {os.strerror(ctypes.get_errno())}")
        size -= behind
        while behind:
            behind -= os.splice(self._out, self._nowhere, behind)
        data = os.read(self._out, size) if size else b""
        while len(data) < size:  # the container has made it a pipe of packets, of which read(2) gives one at a time
            data += os.read(self._out, size - len(data))
        return data

    def take(self, fd: int, size: int, last: memoryview) -> None:
        """Take `size` bytes, which were seen, and put the last one of them into `last`, all at once."""
        with contextlib.suppress(BlockingIOError):  # the container itself has read what it wrote
            while size > 0:  # once, but for packets
                whole, part = divmod(size - 1, _WASTE)
                size -= os.readv(fd, [*[self._waste] * whole, self._waste[:part], last]) or size
