"""Lane: calls of an agent on this host, each on a connection of its own (`shoal/lane.py`). No gRPC is imported."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections import deque
from collections.abc import Mapping

from cli.carrier import UNAVAILABLE, Failure, Metadata
from shoal import lane
from shoal.errors import InvalidArgument
from shoal.v1.lane_pb2 import LaneOpen, LaneStatus

_CONNECT_S = 5.0
_READ_BYTES = 256 << 10
_FRESH_S = 1.0


class Lanes:
    """The lanes of one agent. The first is there when this is made, which is how it is known that the agent has any; an
    agent does not wait long for what is called, so it is used only while it is `fresh_s` old."""

    def __init__(self, path: str, *, fresh_s: float = _FRESH_S) -> None:
        """Raises OSError where nobody serves lanes, or not us."""
        self._path = path
        self._first: socket.socket | None = _connected(path)
        self._stale_at = time.monotonic() + fresh_s

    def open(self, method: str, metadata: Metadata, timeout_s: float | None) -> Lane:
        opening = LaneOpen(method=method, metadata=dict(metadata), timeout_s=timeout_s or 0.0)
        try:
            connection = self._connection()
        except OSError as error:
            raise Failure(UNAVAILABLE, error.strerror or str(error), {}) from error
        connection.setblocking(False)
        return Lane(connection, lane.frame(lane.OPEN, opening.SerializeToString()))

    async def close(self) -> None:
        if self._first is not None:
            self._first.close()

    def _connection(self) -> socket.socket:
        first, self._first = self._first, None
        if first is not None and time.monotonic() < self._stale_at:
            return first
        if first is not None:
            first.close()
        return _connected(self._path)


class Lane:
    """One call, on a connection that does not block. Its opening goes with the first message, which saves both sides
    a turn, or alone if none comes at once: a user may be long in typing it."""

    def __init__(self, connection: socket.socket, opening: bytes) -> None:
        self.trailing: Mapping[str, str | bytes] = {}
        self._connection = connection
        self._frames = lane.Frames()
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._gone = False
        self._loop = asyncio.get_running_loop()
        self._opening = opening
        self._loop.call_soon(self._open)

    async def write(self, message: bytes, *, last: bool = False) -> bool:
        end = lane.frame(lane.END) if last else b""
        return await self._send(lane.frame(lane.MESSAGE, message) + end)

    async def done_writing(self) -> None:
        await self._send(lane.frame(lane.END))

    async def read(self) -> bytes | None:
        self._open()
        while not self._waiting:
            try:
                data = await self._loop.sock_recv(self._connection, _READ_BYTES)
                self._waiting += self._frames.feed(data)
            except (OSError, InvalidArgument) as error:
                raise Failure(UNAVAILABLE, str(error), {}) from error
            if not data:
                raise Failure(UNAVAILABLE, "the agent has hung up", {})
        kind, payload = self._waiting.popleft()
        if kind == lane.MESSAGE:
            return payload
        status = LaneStatus.FromString(payload)
        self.trailing = {
            key: value if key.endswith("-bin") else value.decode(errors="replace")
            for key, value in status.trailing.items()
        }
        self._gone = True
        if status.code:
            raise Failure(status.code, status.message, self.trailing)
        return None

    def cancel(self) -> None:
        self._gone = True
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()

    def _open(self) -> None:
        """It fits: nothing was sent on this connection yet."""
        if self._opening and not self._gone:
            opening, self._opening = self._opening, b""
            with contextlib.suppress(OSError):  # an agent that has hung up has said why
                self._connection.sendall(opening)

    async def _send(self, frames: bytes) -> bool:
        if self._gone:
            return False
        opening, self._opening = self._opening, b""
        try:
            await self._loop.sock_sendall(self._connection, opening + frames)
        except OSError:  # the agent takes no more; what it said last can still be read
            self._gone = True
        except asyncio.CancelledError:  # half a frame is on its way: nothing may follow it
            self._gone = True
            raise
        return not self._gone


def _connected(path: str) -> socket.socket:
    """One that waits, but not for good."""
    made = socket.socket(socket.AF_UNIX)
    try:
        made.settimeout(_CONNECT_S)
        made.connect(path)
    except BaseException:
        made.close()
        raise
    return made
