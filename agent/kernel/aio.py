"""A write that goes on while its caller does something else: the C library makes it in a thread of its own (aio(7)).

A thread of ours would have to wait for the interpreter's lock before it and after it, which is longer than the write.
"""

from __future__ import annotations

import ctypes
import errno
import os
from mmap import mmap
from typing import Any

_SIGEV_NONE = 1
_libc = ctypes.CDLL(None, use_errno=True)
# Of the struct below; other C libraries have it otherwise.
AVAILABLE = hasattr(_libc, "gnu_get_libc_version") and ctypes.sizeof(ctypes.c_void_p) == 8
if AVAILABLE:
    _libc.aio_return.restype = ctypes.c_ssize_t


class _Control(ctypes.Structure):
    """`struct aiocb` of glibc's <aio.h>, 168 bytes where pointers have 8."""

    _fields_ = (
        ("fd", ctypes.c_int),
        ("operation", ctypes.c_int),
        ("priority", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("size", ctypes.c_size_t),
        ("value", ctypes.c_void_p),
        ("signal", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("internal", ctypes.c_char * 120),
    )


# What is being written stays in memory, whatever becomes of who asked for it.
_under_way: set[Write] = set()


class Write:
    """To the end of a file that was opened with O_APPEND, behind those begun before (aio_write(3)). `wait` has to be
    called."""

    def __init__(self, fd: int, data: bytes | mmap, size: int) -> None:
        """The first `size` bytes of `data`, which stays as it is until they are written. Raises OSError."""
        self._data = data
        self._over: tuple[int, int] | None = None  # bytes, errno
        if isinstance(data, bytes):
            address = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value
        else:
            address = ctypes.addressof(ctypes.c_char.from_buffer(data))
        self._control = _Control(fd=fd, buffer=address, size=size, notify=_SIGEV_NONE)
        if _libc.aio_write(ctypes.byref(self._control)) < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        _under_way.add(self)

    def wait(self) -> int:
        """How many bytes were written. Raises OSError when none could be."""
        if self._over is None:
            one = (ctypes.c_void_p * 1)(ctypes.addressof(self._control))
            control: Any = ctypes.byref(self._control)
            while (failed := _libc.aio_error(control)) == errno.EINPROGRESS:
                _libc.aio_suspend(one, 1, None)
            self._over = _libc.aio_return(control), failed
            _under_way.discard(self)
        written, failed = self._over
        if failed:
            raise OSError(failed, os.strerror(failed))
        return written
