"""Folders below one that have nothing to do with each other, said to the disk: attribute T of chattr(1).

ext4 makes a folder in the group of inodes where the one around it is, a file in that of its folder. An inode that was
freed is not given away for minutes, but looked at by whoever takes another of its group: where all containers of a host
come and go in one group, that is most of what a new file costs. With the attribute each has a group of its own, which
ext4 chooses by looking at all: a large disk is better off without.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct

# FS_IOC_GETFLAGS, FS_IOC_SETFLAGS and FS_TOPDIR_FL of linux/fs.h: their type is long, their value an int.
_LONG = struct.calcsize("l")
_GET_FLAGS = 0x8000_6601 | _LONG << 16
_SET_FLAGS = 0x4000_6602 | _LONG << 16
TOP = 0x0002_0000
# On a disk of this size the search takes as long as a file or two; without, a file may take as long as ten.
MOST_BYTES = 1 << 40


def spread(folder: str) -> None:
    """What is made in `folder` from now on is spread. A disk that does not know this, or is large, stays as it is."""
    disk = os.statvfs(folder)
    if disk.f_blocks * disk.f_frsize > MOST_BYTES:
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            fcntl.ioctl(descriptor, _SET_FLAGS, struct.pack("i", flags(descriptor) | TOP))
    finally:
        os.close(descriptor)


def flags(descriptor: int) -> int:
    """The attributes of a file. Raises OSError where there are none."""
    found: int = struct.unpack_from("i", fcntl.ioctl(descriptor, _GET_FLAGS, bytes(_LONG)))[0]
    return found
