"""A container or exec in the foreground: its terminal joined to ours, our signals passed on, its exit code ours."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
import struct
import termios
import tty
from collections.abc import Callable, Iterator

from agent.kernel import pidfd as pidfds
from agent.runtime import console
from agent.runtime.oci.child import Child

_CHUNK = 1 << 16
_KEPT = {signal.SIGCHLD, signal.SIGWINCH, signal.SIGURG, signal.SIGPIPE}  # ours to heed, or nobody's


def wait(child: Child, master: int = -1) -> int:
    """Until the process ends; its exit code, 128 + n after signal n. `master` is its terminal's, if it has one."""
    for number in signal.valid_signals() - _KEPT - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT}:
        if number < 32:
            signal.signal(number, lambda given, _: pidfds.send_signal(child.pidfd, given) and None)
    if master >= 0:
        with _raw(0):
            _copy(child, master)
        os.close(master)
    result = os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED)
    assert result is not None
    return result.si_status if result.si_code == os.CLD_EXITED else 128 + result.si_status


@contextlib.contextmanager
def _raw(fd: int) -> Iterator[None]:
    """Every key goes to the other side."""
    if not os.isatty(fd):
        yield
        return
    before = termios.tcgetattr(fd)
    tty.setraw(fd, termios.TCSADRAIN)  # what was typed ahead is for the container
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def size() -> tuple[int, int]:
    """Rows and columns of our terminal, 0 and 0 without one."""
    with contextlib.suppress(OSError):
        rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(1, termios.TIOCGWINSZ, bytes(8)))
        return rows, columns
    return 0, 0


def _copy(child: Child, master: int) -> None:
    def resized(_number: int = 0, _frame: object = None) -> None:
        rows, columns = size()
        if rows:
            console.resize(master, rows, columns)

    signal.signal(signal.SIGWINCH, resized)
    resized()
    os.set_blocking(master, True)
    poll = select.poll()
    poll.register(master, select.POLLIN)
    poll.register(child.pidfd, select.POLLIN)
    poll.register(0, select.POLLIN)
    ended = False
    while not ended or _ready(master):
        for fd, _ in poll.poll():
            if fd == 0 and not _pass(0, lambda data: _all(master, data)):
                poll.unregister(0)
                _all(master, b"\x04")
            elif fd == master and not _pass(master, lambda data: _all(1, data)):
                return
            elif fd == child.pidfd:
                ended = True
                poll.unregister(child.pidfd)
        if ended and not _ready(master):
            return


def _ready(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


def _pass(fd: int, give: Callable[[bytes], None]) -> bool:
    """One piece from `fd` on; False at its end."""
    try:
        data = os.read(fd, _CHUNK)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return False
    if data:
        give(data)
    return bool(data)


def _all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
