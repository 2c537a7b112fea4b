"""Machine code in the memory of this process: for what an interpreter does too slowly, or must not do at all."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct

from agent.kernel import syscalls


def supported() -> bool:
    """Whether this machine can run ours, which is x86-64's."""
    return syscalls.MACHINE == "x86_64" and struct.calcsize("P") == 8


class MachineCode:
    """`address` is that of its first byte, for as long as this object lives."""

    def __init__(self, code: bytes) -> None:
        """Raises OSError where the host forbids generated code."""
        page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        page.write(code)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(page))
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        if libc.mprotect(self.address, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_EXEC):
            raise OSError(ctypes.get_errno(), f"mprotect: {os.strerror(ctypes.get_errno())}")
        self._page = page
