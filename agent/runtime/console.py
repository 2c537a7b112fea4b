"""A terminal for a container: opened inside, from the container's own devpts, and its master sent out to the keeper.

The child puts the master over a descriptor that both sides agreed on and sends that number with SCM_RIGHTS, so that the
message is a constant. TIOCGPTPEER takes the slave from the master itself: no path that an image could have redirected.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import struct
import termios
from typing import NamedTuple

from agent.kernel import openat2
from agent.kernel import syscalls as sys
from agent.kernel.program import Fd, Op, Ref, Struct
from agent.runtime.failure import Failure
from agent.runtime.mounts import opened, reached

_TIOCGPTPEER = 0x5441
_TIOCSPTLCK = 0x40045431
_OPEN = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
_RESOLVE = openat2.NO_SYMLINKS | openat2.NO_MAGICLINKS
_PTMX = os.makedev(5, 2)


class Console(NamedTuple):
    """A wish for a terminal. `ours` receives the master; in the child its number is reused for the master."""

    theirs: int  # sockets
    ours: int
    rows: int
    columns: int

    def receive(self) -> int:
        """The master, once the child has exec'ed. Raises Failure when what came is no terminal."""
        with socket.socket(fileno=os.dup(self.ours)) as ours:
            ours.setblocking(False)
            _, fds, _, _ = socket.recv_fds(ours, 1, 1)
        if not fds or os.fstat(fds[0]).st_rdev != _PTMX:
            for fd in fds:
                os.close(fd)
            raise Failure("StartFailed", "the container's /dev/pts/ptmx is no terminal multiplexer")
        os.set_inheritable(fds[0], False)
        os.set_blocking(fds[0], False)
        return fds[0]


def new(rows: int, columns: int) -> Console:
    theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Console(theirs.detach(), ours.detach(), rows, columns)


def resize(master: int, rows: int, columns: int) -> None:
    """Tell the terminal its size; its foreground process gets SIGWINCH."""
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def ops(console: Console, uid: int, *, device: bool) -> list[Op]:
    """Open the terminal, hand its master out, make it the controlling one and stdio; `device`: bind /dev/console."""
    step = "open a terminal"
    master = console.ours
    rights = Struct((20, socket.SOL_SOCKET | socket.SCM_RIGHTS << 32, Fd(master)))  # struct cmsghdr and one int
    message = Struct((0, 0, Struct((b"t", 1)), 1, rights, 24, 0))  # struct msghdr
    found = [
        Op(
            step,
            "openat2",
            (
                sys.AT_FDCWD,
                b"/dev/pts/ptmx",
                openat2.how(_OPEN, _RESOLVE),
                openat2.HOW_SIZE,
            ),
            label="ptm",
        ),
        Op(step, "ioctl", (Ref("ptm"), _TIOCSPTLCK, bytes(4))),
        Op(step, "ioctl", (Ref("ptm"), _TIOCGPTPEER, _OPEN), label="pts"),
        Op(step, "dup3", (Ref("ptm"), Fd(master), os.O_CLOEXEC)),
        Op("hand the terminal out", "sendmsg", (Fd(console.theirs), message, 0)),
        Op(step, "fchown", (Ref("pts"), uid, (1 << 32) - 1)),
    ]
    if console.rows and console.columns:
        size = struct.pack("HHHH", console.rows, console.columns, 0, 0)
        found.append(Op("set the terminal's size", "ioctl", (Ref("pts"), termios.TIOCSWINSZ, size)))
    if device:
        clone = sys.OPEN_TREE_CLONE | sys.OPEN_TREE_CLOEXEC | sys.AT_EMPTY_PATH
        step = "make /dev/console"
        found += [
            *reached("/dev", resolve=_RESOLVE),
            Op(step, "mknodat", (sys.AT_FDCWD, b"console", stat.S_IFREG | 0o600, 0), ignore=(errno.EEXIST,)),
            opened("/dev/console", "console", resolve=_RESOLVE, step=step),
            Op(step, "open_tree", (Ref("pts"), b"", clone), label="console mount"),
            Op(
                step,
                "move_mount",
                (
                    Ref("console mount"),
                    b"",
                    Ref("console"),
                    b"",
                    sys.MOVE_MOUNT_F_EMPTY_PATH | sys.MOVE_MOUNT_T_EMPTY_PATH,
                ),
            ),
        ]
    found.append(Op("make it the controlling terminal", "ioctl", (Ref("pts"), termios.TIOCSCTTY, 0)))
    return found + [Op(step, "dup3", (Ref("pts"), number, 0)) for number in range(3)]
