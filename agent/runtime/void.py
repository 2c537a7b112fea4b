"""Void: a mount namespace with nothing to see in it, which containers' own begin as copies of.

A copy of the host's costs as much as the host has mounts, and its last part, letting go of them all, waits until no
processor can have one of them in hand: a quarter of a start. So a child takes what it needs of the host as detached
mounts (`root.detached`, `mounts.cloned`), enters the void, copies that and puts its root over it. Below a container's /
there is then an empty directory that nobody can write to, where else there is the host's initial ramdisk.
"""

from __future__ import annotations

import contextlib
import os
import threading

from agent.kernel import syscalls as sys


def new(place: str) -> int:
    """A descriptor of one, or -1 where this host has none to give: it starts from a ramdisk, or cannot give overlays
    one layer at a time (before Linux 6.8). `place` is any directory of the host. Blocks."""
    made: list[int] = []

    def work() -> None:
        with contextlib.suppress(OSError):
            _try_overlays()
            sys.call("unshare", sys.CLONE_NEWNS)
            fd = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
            try:
                _clear(os.fsencode(place))
            except OSError:
                os.close(fd)
                raise
            made.append(fd)

    thread = threading.Thread(target=work)  # it cannot come back from there
    thread.start()
    thread.join()
    return made[0] if made else -1


def _clear(place: bytes) -> None:
    """Leave nothing of the host's tree but `place`, with an empty file system on it."""
    flags = sys.MS_RDONLY | sys.MS_NOSUID | sys.MS_NODEV | sys.MS_NOEXEC
    sys.call("mount", None, b"/", None, sys.MS_REC | sys.MS_PRIVATE, None)
    sys.call("mount", b"void", place, b"tmpfs", flags, b"size=4k,mode=555")
    sys.call("chdir", place)
    sys.call("pivot_root", b".", b".")
    sys.call("umount2", b".", sys.MNT_DETACH)
    sys.call("chroot", b".")  # as every child will


def _try_overlays() -> None:
    context = sys.call("fsopen", b"overlay", sys.FSOPEN_CLOEXEC)
    try:
        sys.call("fsconfig", context, sys.FSCONFIG_SET_STRING, b"lowerdir+", b"/", 0)
    finally:
        os.close(context)
