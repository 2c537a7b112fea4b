"""Opening paths that somebody else chose: openat2(2) with its guards, here and as the argument of an op.

IN_ROOT treats `dir_fd` as the root of every path and symlink. NO_SYMLINKS is for the paths that the runtime itself
mounts on (/proc, /dev, /sys): an image where one of them is a link must be refused, not followed.
"""

from __future__ import annotations

import os
import struct

from agent.kernel import syscalls

NO_XDEV = 0x01
NO_MAGICLINKS = 0x02
NO_SYMLINKS = 0x04
BENEATH = 0x08
IN_ROOT = 0x10

HOW_SIZE = 24


def how(flags: int, resolve: int, mode: int = 0) -> bytes:
    """A struct open_how."""
    return struct.pack("<QQQ", flags | os.O_CLOEXEC, mode, resolve)


def open_in_root(root_fd: int, path: str, flags: int, *, resolve: int = IN_ROOT | NO_MAGICLINKS, mode: int = 0) -> int:
    """Open `path` as a process whose root directory is `root_fd` would; the descriptor is close-on-exec."""
    try:
        return syscalls.call("openat2", root_fd, os.fsencode(path), how(flags, resolve, mode), HOW_SIZE)
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno or 0), path) from error
