"""The program behind `unpacker`: it waits with all imported that `unpack` needs, and forks for each layer.

Input: a socket, on which each message is a layer's order (`unpack.run`), with two descriptors: where the archive comes
from, and where to say what came of it. The answer is the fork's pidfd. It ends with the socket. Standard library only,
single-threaded, needs root.
"""

from __future__ import annotations

import _socket
import marshal
import os
import resource
import sys
from _struct import pack, unpack

from agent.image.unpack import die_with_parent, run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_ORDER_BYTES = 1 << 18
_LENT = "2i"
_ANSWER = "i"


def main() -> NoReturn:
    die_with_parent()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o022)
    line = _socket.socket(fileno=0)
    while True:
        order, lent, _, _ = line.recvmsg(_ORDER_BYTES, _socket.CMSG_SPACE(8))
        if not order:
            os._exit(0)
        source, sink = unpack(_LENT, lent[0][2])
        child = os.fork()
        if not child:
            _become(order, source, sink)
        os.close(source)
        os.close(sink)
        pidfd = os.pidfd_open(child)
        line.sendmsg([b"+"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, pack(_ANSWER, pidfd))])
        os.close(pidfd)
        _reap()


def _become(order: bytes, source: int, sink: int) -> NoReturn:
    """In the fork: unpack, and say how it went; also that it went wrong in a way that nobody thought of."""
    try:
        die_with_parent()
        os.dup2(source, 0)  # in place of the socket
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        os.close(source)
        os.close(sink)
        run(marshal.loads(order))
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(1)


def _reap() -> None:
    """Forks that have ended; each is a zombie until now, so that no other process has its pid while it gets a pidfd."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return
