"""A second tiny process that holds descriptors for the keeper, so that a crash of the keeper ends nothing.

Without it a keeper's death would hang up every terminal, close every stdin, and lose output that a container wrote just
before it exited. It knows nothing: it keeps what it is given under a key, gives everything back to the next keeper, and
needs no upgrade. If it dies alone, the keeper starts another and gives it everything again (`Holder`).
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

from agent.runtime import wire

_SIZE = 4096
_MOST = 8  # descriptors in one message
_ROOMS = str(Path(__file__).resolve().parents[2])
_PUT, _DROP, _GIVE, _QUIT = b"+", b"-", b"?", b"!"


class Holder:
    """The keeper's side. Every call may raise OSError when the process is gone; then call `open` again."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "holder.sock"
        self._socket: socket.socket | None = None
        self._pid = 0

    def open(self) -> dict[str, int]:
        """Connect, starting the process if there is none; returns the descriptors it held, by key."""
        self.close()
        if self._pid:
            os.waitpid(self._pid, 0)  # it closed the connection by dying
            self._pid = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with wire.address(self._path) as name:
                self._socket.connect(name)
        except OSError:
            listener = wire.listen(self._path, socket.SOCK_SEQPACKET)
            self._pid = _spawn(listener)
            listener.close()
            with wire.address(self._path) as name:
                self._socket.connect(name)
        return self._take()

    @property
    def pid(self) -> int:
        """The process, if it is our child."""
        return self._pid

    def fileno(self) -> int:
        """Readable when the process has died."""
        return self._socket.fileno() if self._socket else -1

    def put(self, held: Mapping[str, int]) -> None:
        """Give it copies of some descriptors, by key."""
        socket.send_fds(self._connected(), [_PUT + b"\0".join(map(str.encode, held))], list(held.values()))

    def drop(self, key: str) -> None:
        """Close the copies under `key` and under everything below it ("ID/" for all of a container)."""
        self._connected().send(_DROP + key.encode())

    def quit(self) -> None:
        """End the process; only when there is nothing left to hold."""
        with contextlib.suppress(OSError):
            self._connected().send(_QUIT)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _take(self) -> dict[str, int]:
        channel, held = self._connected(), dict[str, int]()
        channel.send(_GIVE)
        while True:
            key, fds, _, _ = socket.recv_fds(channel, _SIZE, 1)
            if not fds:
                return held
            os.set_inheritable(fds[0], False)
            held[key.decode()] = fds[0]

    def _connected(self) -> socket.socket:
        if self._socket is None:
            raise ConnectionError("the holder is not connected")
        return self._socket


def _spawn(listener: socket.socket) -> int:
    code = f"import sys; sys.path.insert(0, {_ROOMS!r}); from agent.runtime.holder import serve; serve()"
    actions: list[tuple[int, int, int]] = [(os.POSIX_SPAWN_DUP2, listener.fileno(), 3)]
    if listener.fileno() == 3:
        os.set_inheritable(3, True)
        actions = []
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-I", "-S", "-E", "-c", code],
        {},
        file_actions=actions,
        setsid=True,
        setsigdef=[signal.SIGPIPE, signal.SIGTERM],
    )


def serve() -> None:
    """The process itself: listen on descriptor 3, serve one keeper at a time, for ever."""
    os.set_inheritable(3, False)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    listener = socket.socket(fileno=3)
    held: dict[str, int] = {}
    while True:
        channel, _ = listener.accept()
        with contextlib.suppress(OSError), channel:
            _converse(channel, held)


def _converse(channel: socket.socket, held: dict[str, int]) -> None:
    while True:
        data, fds, _, _ = socket.recv_fds(channel, _SIZE, _MOST)
        if not data:
            return
        order, key = data[:1], data[1:].decode()
        if order == _PUT:
            for name, fd in zip(key.split("\0"), fds, strict=True):
                os.set_inheritable(fd, False)
                if name in held:
                    os.close(held[name])
                held[name] = fd
        elif order == _DROP:
            for name in [name for name in held if name == key or name.startswith(key)]:
                os.close(held.pop(name))
        elif order == _GIVE:
            for name, fd in held.items():
                socket.send_fds(channel, [name.encode()], [fd])
            channel.send(b".")
        elif order == _QUIT:
            sys.exit(0)
