"""fsync(2) for an event loop: threads of the kernel wait for the disk, and none of ours is woken before and after.

This is the kernel's asynchronous I/O, io_submit(2) with IOCB_CMD_FSYNC (Linux 4.18), not the C library's (`aio`).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import struct
from collections.abc import Sequence

from agent.kernel import syscalls

AT_ONCE = 128
_FSYNC, _TELL = 2, 1  # IOCB_CMD_FSYNC, IOCB_FLAG_RESFD
# struct iocb of <linux/aio_abi.h>: data, two words of the kernel's, operation, priority, descriptor, buffer, size,
# offset, a reserved word, flags, and the eventfd that is told.
_ORDER = struct.Struct("<QIIHhIQQqQII")
_EVENT = struct.Struct("<QQqq")  # struct io_event: data, the order's address, the result, a second one


class _Call:
    """`left` of its orders are under way."""

    def __init__(self, left: int, future: asyncio.Future[None]) -> None:
        self.left = left
        self.future = future


class Syncs:
    """For one event loop, in its thread. What the kernel has no room for (fs.aio-max-nr) is done in threads."""

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._calls: dict[int, _Call] = {}
        self._last = 0
        self._context = ctypes.c_ulong()
        self._events = ctypes.create_string_buffer(at_once * _EVENT.size)
        self._told = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        with contextlib.suppress(OSError):
            syscalls.call("io_setup", at_once, ctypes.addressof(self._context))
        asyncio.get_running_loop().add_reader(self._told, self._look)

    async def sync(self, *descriptors: int) -> None:
        """Returns when all are on the disk. Raises OSError. They may be closed however this is left."""
        self._last += 1
        taken = self._submit(self._last, descriptors)
        if taken:
            call = self._calls[self._last] = _Call(taken, asyncio.get_running_loop().create_future())
            await call.future
        for each in descriptors[taken:]:
            await asyncio.to_thread(_sync, os.dup(each))

    def close(self) -> None:
        """Waits for what is under way; nobody else may."""
        asyncio.get_running_loop().remove_reader(self._told)
        if self._context:
            syscalls.call("io_destroy", self._context.value)
        os.close(self._told)

    def _submit(self, data: int, descriptors: Sequence[int]) -> int:
        """How many of them the kernel took: the first ones."""
        if not self._context:
            return 0
        orders = [_ORDER.pack(data, 0, 0, _FSYNC, 0, each, 0, 0, 0, 0, _TELL, self._told) for each in descriptors]
        addresses = (ctypes.c_char_p * len(orders))(*orders)
        try:
            return syscalls.call("io_submit", self._context.value, len(orders), ctypes.addressof(addresses))
        except OSError:
            return 0  # what is wrong with the first one, its fsync(2) will say

    def _look(self) -> None:
        """What has been done since the last look."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._told)
        room = count = len(self._events) // _EVENT.size
        while count == room:  # the kernel takes more at once than it was asked to have room for
            count = syscalls.call("io_getevents", self._context.value, 0, room, ctypes.addressof(self._events), None)
            for number in range(count):
                data, _, result, _ = _EVENT.unpack_from(self._events, number * _EVENT.size)
                self._done(data, -result)

    def _done(self, data: int, errno: int) -> None:
        call = self._calls[data]
        call.left -= 1
        if call.left == 0:
            del self._calls[data]
        if call.future.done():  # nobody waits any more
            return
        if errno:
            call.future.set_exception(OSError(errno, os.strerror(errno)))
        elif call.left == 0:
            call.future.set_result(None)


def _sync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
