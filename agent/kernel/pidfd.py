"""Processes by descriptor: identity that a reused pid cannot fake, signals, and the end of a process that is not ours.

`start_time` is the fallback identity for kernels before 6.9, whose pidfds share one inode.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import struct

_PIDFD_GET_INFO = 0xC040FF0B  # _IOWR(0xFF, 11, struct pidfd_info of 64 bytes), Linux 6.13
_PIDFD_INFO_EXIT = 1 << 3  # Linux 6.15
_INFO = struct.Struct("<QQ11Ii")


def send_signal(pidfd: int, number: int) -> bool:
    """Signal the process; False when it is gone."""
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    return True


def start_time(pid: int) -> int:
    """When the process began, in clock ticks since boot; 0 when there is none. With the pid it names one process."""
    fields = _stat(pid)
    return int(fields[19]) if fields else 0


def alive(pid: int, started: int) -> bool:
    """Whether the process that began at `started` is there and no zombie."""
    fields = _stat(pid)
    return bool(fields) and int(fields[19]) == started and fields[0] not in ("Z", "X")


def inode(pidfd: int) -> int:
    """The pidfd's inode: unique per process and boot since Linux 6.9, the same for all before."""
    return os.fstat(pidfd).st_ino


def inodes_tell() -> bool:
    """Whether each process has an inode of its own here: pidfds have left the file system of anonymous inodes."""
    pidfd, anonymous = os.pidfd_open(os.getpid()), os.eventfd(0)
    try:
        return os.fstat(pidfd).st_dev != os.fstat(anonymous).st_dev
    finally:
        os.close(pidfd)
        os.close(anonymous)


def exit_status(pidfd: int, pid: int) -> int | None:
    """The wait status of a dead process, whether or not it was our child; None when nobody can know it any more.

    Call it when the pidfd is readable. For a child this reaps it.
    """
    try:
        result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return _foreign_status(pidfd, pid)
    if result is None:
        return None
    return result.si_status << 8 if result.si_code == os.CLD_EXITED else result.si_status


def _foreign_status(pidfd: int, pid: int) -> int | None:
    status = _status_of_reaped(pidfd)
    if status is None:
        fields = _stat(pid)  # a zombie that its parent has not reaped yet tells root its status
        if fields and fields[0] == "Z":
            return int(fields[49])
        status = _status_of_reaped(pidfd)  # reaped between the two looks
    return status


def _status_of_reaped(pidfd: int) -> int | None:
    info = bytearray(_INFO.pack(_PIDFD_INFO_EXIT, *([0] * 13)))
    try:
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, info)
    except OSError as error:
        if error.errno not in (errno.ENOTTY, errno.EINVAL, errno.ESRCH):
            raise
        return None
    values = _INFO.unpack(info)
    return int(values[-1]) if values[0] & _PIDFD_INFO_EXIT else None


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third ("state") on; empty when there is no such process."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return []
    try:
        text = os.read(fd, 4096).decode(errors="replace")
    except ProcessLookupError:
        return []
    finally:
        os.close(fd)
    return text[text.rindex(")") + 2 :].split()
