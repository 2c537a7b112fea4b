"""The system calls that Python has no function for: one ctypes entry and one errno check.

`NUMBERS` (from `numbers`) serves `table`, which encodes calls for another process, as well as `call`, which makes one
here. The constants are those that `os`, `signal` and `socket` do not know, named as the kernel's headers name them.
"""

from __future__ import annotations

import ctypes
import os

from agent.kernel.numbers import numbers_of

MACHINE = os.uname().machine
NUMBERS = numbers_of(MACHINE)

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

CLONE_VM = 0x100
CLONE_PIDFD = 0x1000
CLONE_VFORK = 0x4000
CLONE_PARENT = 0x8000
CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_CLEAR_SIGHAND = 0x100000000
CLONE_INTO_CGROUP = 0x200000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_SYNCHRONOUS = 16
MS_REMOUNT = 32
MS_MANDLOCK = 64
MS_DIRSYNC = 128
MS_NOSYMFOLLOW = 256
MS_NOATIME = 1024
MS_NODIRATIME = 2048
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_SILENT = 32768
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MS_RELATIME = 1 << 21
MS_I_VERSION = 1 << 23
MS_STRICTATIME = 1 << 24
MS_LAZYTIME = 1 << 25
MNT_DETACH = 2

MOUNT_ATTR_RDONLY = 0x01
MOUNT_ATTR_NOSUID = 0x02
MOUNT_ATTR_NODEV = 0x04
MOUNT_ATTR_NOEXEC = 0x08
MOUNT_ATTR__ATIME = 0x70
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x100000
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x04
MOVE_MOUNT_T_EMPTY_PATH = 0x40
FSOPEN_CLOEXEC = 1
FSMOUNT_CLOEXEC = 1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6

PR_SET_PDEATHSIG = 1
PR_CAPBSET_DROP = 24
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
_SIG_IGN = 1  # signal(7); the module costs a child more to import than all else here
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4

SECCOMP_SET_MODE_FILTER = 1
KEYCTL_JOIN_SESSION_KEYRING = 1
CLOSE_RANGE_CLOEXEC = 4

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # mallopt(3)
_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_setns = _libc.setns  # twice in each exec, and `call` takes three times as long
_setns.argtypes, _setns.restype = [ctypes.c_int, ctypes.c_int], ctypes.c_int


def call(name: str, *args: int | bytes | None) -> int:
    """Make one system call in this thread. Bytes are passed as a NUL-terminated pointer, None as NULL.

    Raises OSError whose text begins with the call's name.
    """
    words = [
        ctypes.c_void_p(None) if arg is None else ctypes.c_char_p(arg) if isinstance(arg, bytes) else ctypes.c_long(arg)
        for arg in args
    ]
    result = int(_syscall(ctypes.c_long(NUMBERS[name]), *words))
    if result < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"{name}: {os.strerror(errno)}")
    return result


def setns(fd: int, kinds: int) -> None:
    """Move this thread into the namespaces of `fd` (a namespace's file, or a pidfd with several kinds)."""
    if _setns(fd, kinds):
        errno = ctypes.get_errno()
        raise OSError(errno, f"setns: {os.strerror(errno)}")


def heed_internal_signals() -> None:
    """Undo what glibc's posix_spawn(3) leaves its children with: it ignores the two signals that it keeps for itself,
    and its own sigaction(3) refuses to touch them. A handler is left alone."""
    for number in (32, 33):
        action = ctypes.create_string_buffer(32)  # handler, flags, restorer, mask: struct sigaction of the kernel
        call("rt_sigaction", number, None, ctypes.addressof(action), 8)
        if int.from_bytes(action.raw[:8], "little") == _SIG_IGN:
            call("rt_sigaction", number, bytes(32), None, 8)


def set_process_name(name: str) -> None:
    """Name this process for `ps` (15 bytes at most)."""
    call("prctl", PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def keep_heap(size: int) -> None:
    """Have malloc(3) keep up to `size` bytes that are free, instead of asking the kernel for them over and over."""
    for option in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
        _libc.mallopt(option, size)


def forbid_dumps() -> None:
    """Keep other processes from reading this one through /proc or ptrace: a starting child shares its memory."""
    call("prctl", PR_SET_DUMPABLE, 0, 0, 0, 0)
