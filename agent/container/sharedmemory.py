"""Shared memory: the /dev/shm of a container whose IPC others may join (`--ipc shareable`).

It is a tmpfs of the host's, in the container's folder, because a mount cannot be taken out of another mount namespace;
whoever joins mounts the same. Others have theirs inside alone and cost the host no mount. Both calls are idempotent.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from agent.kernel import syscalls
from shoal.defaults import SHM_SIZE_BYTES

_FLAGS = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC


def make(folder: Path, size_bytes: int) -> str:
    """The path of an empty one for the container in `folder`; 0 bytes mean docker's default."""
    remove(folder)
    path = folder / "shm"
    path.mkdir(mode=0o711, exist_ok=True)
    options = f"mode=1777,size={size_bytes or SHM_SIZE_BYTES}"
    syscalls.call("mount", b"shm", os.fsencode(path), b"tmpfs", _FLAGS, options.encode())
    return str(path)


def path_of(folder: Path) -> str:
    """Where `make` put it."""
    return str(folder / "shm")


def remove(folder: Path) -> None:
    """Gone with the last who has it mounted."""
    path = folder / "shm"
    if not path.exists():
        return
    try:
        syscalls.call("umount2", os.fsencode(path), syscalls.MNT_DETACH)
    except OSError as error:
        if error.errno != errno.EINVAL:  # not a mount point
            raise
    with contextlib.suppress(OSError):
        path.rmdir()
