"""Unpacker: the process that unpacks the layers of a pull one after the other, each in a fork of itself.

An interpreter takes longer to start than most layers take to unpack; a fork starts at once, and is locked into its
layer like a child that was started for it (`unpack`). The process itself (`forker`) never sees a byte of an archive.
"""

from __future__ import annotations

import contextlib
import fcntl
import marshal
import os
import select
import signal
import socket
import subprocess
import threading
from typing import Any

from agent.image import child
from agent.kernel import pidfd as pidfds
from shoal.errors import ShoalError

# What may wait between who decompresses and who writes; what root gets without asking (pipe(7)).
_PIPE_BYTES = 1 << 20
_SAID_BYTES = 1 << 16


class Unpacker:
    """A context manager. The process is there from `start` or the first layer on, until the end. Blocks; threads may
    share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None

    def __enter__(self) -> Unpacker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Have the process start, for layers to come."""
        with self._lock:
            self._started()

    def begin(self, wanted: dict[str, Any]) -> Unpacking:
        """Unpack what is written to the child that this returns, as `wanted` (`unpack.run`). Raises ShoalError when the
        process is gone."""
        source, feed = os.pipe2(os.O_CLOEXEC)
        said, sink = os.pipe2(os.O_CLOEXEC)
        try:
            pidfd = self._forked(marshal.dumps(wanted), source, sink)
        except BaseException:
            os.close(feed)
            os.close(said)
            raise
        finally:
            os.close(source)
            os.close(sink)
        return Unpacking(feed, said, pidfd)

    def close(self) -> None:
        """End the process; children that still unpack end with it."""
        with self._lock:
            if self._line is not None:
                self._line.close()
            if self._process is not None:
                self._process.kill()
                self._process.wait()
            self._line = self._process = None

    def _forked(self, order: bytes, source: int, sink: int) -> int:
        with self._lock:
            line = self._started()
            try:
                socket.send_fds(line, [order], [source, sink])
                _, found, _, _ = socket.recv_fds(line, 1, 1, socket.MSG_CMSG_CLOEXEC)
            except ConnectionError:
                found = []
        if not found:
            raise ShoalError("the unpacking process has ended", hint="see the agent's log")
        return found[0]

    def _started(self) -> socket.socket:
        if self._line is None:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self._process = subprocess.Popen(
                    child.argv("agent.image.forker"), stdin=theirs.fileno(), stdout=subprocess.DEVNULL, env={}
                )
            self._line = ours
        return self._line


class Unpacking:
    """One layer on its way through a child. `finish` or `kill` ends it."""

    def __init__(self, feed: int, said: int, pidfd: int) -> None:
        self._feed = feed
        self._said = said
        self._pidfd = pidfd
        with contextlib.suppress(OSError):  # a smaller pipe does it too
            fcntl.fcntl(feed, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    def write(self, data: bytes) -> None:
        """Raises BrokenPipeError when the child reads no more; why is what `finish` returns."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._feed, view) :]

    def finish(self) -> bytes:
        """There is no more: what the child says in the end."""
        os.close(self._feed)
        self._feed = -1
        said = b"".join(iter(lambda: os.read(self._said, _SAID_BYTES), b""))
        self._end()
        return said

    def kill(self) -> None:
        """Harmless once it has ended."""
        if self._pidfd >= 0:
            pidfds.send_signal(self._pidfd, signal.SIGKILL)
            self._end()

    def _end(self) -> None:
        # Its mount is gone when it is, and not yet when it has closed its files.
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        poll.poll()
        for each in (self._feed, self._said, self._pidfd):
            if each >= 0:
                os.close(each)
        self._feed = self._said = self._pidfd = -1
