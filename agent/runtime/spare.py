"""Spare: network namespaces that are ready before somebody wants one.

The kernel takes as long for one as for all the rest of a start, longer while others end, so a few are made ahead. Their
lo is up and nothing else is in them. A container joins one as if its config had named it by path; the agent, whose
namespaces have interfaces, names its own. Nothing is made before the first one was wanted.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import threading

from agent.kernel import syscalls

READY = 4
FEW = 2  # fewer are made up for, several by one thread
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1


class Spare:
    """Threads may share it."""

    def __init__(self) -> None:
        self._ready: list[int] = []
        self._wanted = False
        self._lock = threading.Lock()

    @property
    def short(self) -> bool:
        """Whether `refill` has something to do."""
        return self._wanted and len(self._ready) < FEW

    def take(self) -> int:
        """A descriptor of a fresh namespace, the caller's to close. Raises OSError."""
        self._wanted = True
        with contextlib.suppress(IndexError):
            return self._ready.pop()
        return _made(1)[0]

    def refill(self) -> None:
        """Make what is missing; one thread does it, the others go on."""
        if self._lock.acquire(blocking=False):
            try:
                self._ready += _made(READY - len(self._ready))
            finally:
                self._lock.release()


def _made(count: int) -> list[int]:
    """By a thread that lives only for that: one that went there and failed to return would work in it for ever."""
    made: list[int] = []
    failed: list[OSError] = []

    def work() -> None:
        try:
            while len(made) < count:
                syscalls.call("unshare", syscalls.CLONE_NEWNET)
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as inside:
                    fcntl.ioctl(inside, _SIOCSIFFLAGS, struct.pack("<16sH22x", b"lo", _IFF_UP))
                made.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if failed and not made:
        raise failed[0]
    return made
