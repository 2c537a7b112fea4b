"""The process of a virtual machine, found by what the kernel knows: QEMU holds a lock on its pidfile for as long as it
lives (fcntl(2)), so that neither an old pidfile nor another process with an old number is taken for it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import struct
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from machine.drivers.qemu import qmp
from machine.drivers.qemu.vm import Folder
from shoal.clock import Clock
from shoal.errors import DeadlineExceeded, ShoalError, Unsupported

# struct flock, with the padding behind it.
_LOCK = "hhqqi0q"
_START_S = 120.0
_AGAIN_S = 0.05
_KILL_S = 60.0


class Process:
    """One that lives, or lived a moment ago; its number cannot be given to another while we hold this."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def ended_within(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def kill(self) -> None:
        """Returns once it is gone, and with it its hold on the disk."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)
        if not self.ended_within(_KILL_S):
            raise ShoalError(f"QEMU has not ended for {_KILL_S:.0f} s after it was killed")


@contextlib.contextmanager
def running(pidfile: Path) -> Iterator[Process | None]:
    """The process, or None where the machine is off."""
    descriptor = _open(pidfile)
    try:
        yield None if descriptor is None else Process(descriptor)
    finally:
        if descriptor is not None:
            os.close(descriptor)


def start(
    argv: Sequence[str],
    folder: Folder,
    *,
    descriptors: Sequence[int],
    clock: Clock,
    pause: Callable[[float], None],
) -> None:
    """Run QEMU apart from us; returns once it answers. Where one was on its way already, whose starter was killed, the
    lock lets one of the two go on, and that is as good. Raises ShoalError with what ours said instead."""
    with folder.complaints.open("wb") as said:
        try:
            child = subprocess.Popen(
                argv,
                cwd=folder.path,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                pass_fds=descriptors,
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise missing(argv[0]) from error
    until = clock.monotonic() + _START_S
    while not qmp.answers(folder.qmp):
        if child.poll() is not None and not _holder(folder.pidfile):
            why = folder.complaints.read_text(errors="replace").strip()[-2000:]
            raise ShoalError(f"{argv[0]} cannot start: {why or child.returncode}")
        if clock.monotonic() > until:
            child.kill()
            raise DeadlineExceeded(f"{argv[0]} has not answered for {_START_S:.0f} s", hint=f"see {folder.complaints}")
        pause(_AGAIN_S)


def missing(program: str) -> Unsupported:
    return Unsupported(
        f"there is no {program} on this computer", hint="apt-get install qemu-system-x86 qemu-utils e2fsprogs"
    )


def _open(pidfile: Path) -> int | None:
    """A descriptor of the process that holds the lock, and still did once we had it."""
    while pid := _holder(pidfile):
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        if _holder(pidfile) == pid:
            return descriptor
        os.close(descriptor)
    return None


def _holder(pidfile: Path) -> int:
    """0 where nobody does."""
    try:
        file = os.open(pidfile, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        asked = struct.pack(_LOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = struct.unpack(_LOCK, fcntl.fcntl(file, fcntl.F_GETLK, asked))
        return 0 if kind == fcntl.F_UNLCK else int(pid)
    finally:
        os.close(file)
