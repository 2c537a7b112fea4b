"""Lane: calls of an agent on this host, each on a connection of its own (`shoal/lane.py`). No gRPC is imported."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Mapping

from cli.carrier import UNAVAILABLE, Failure, Metadata
from shoal import lane
from shoal.errors import InvalidArgument
from shoal.v1.lane_pb2 import LaneOpen, LaneStatus

_CONNECT_S = 5.0
_READ_BYTES = 256 << 10


class Lanes:
    """The lanes of one agent. The first is there when this is made, which is how it is known that the agent has any."""

    def __init__(self, path: str) -> None:
        """Raises OSError where nobody serves lanes, or not us."""
        self._path = path
        self._first: socket.socket | None = _connected(path)

    def open(self, method: str, metadata: Metadata, timeout_s: float | None) -> Lane:
        connection, self._first = self._first, None
        if connection is None:
            try:
                connection = _connected(self._path)
            except OSError as error:
                raise Failure(UNAVAILABLE, error.strerror or str(error), {}) from error
        opening = LaneOpen(method=method, metadata=dict(metadata), timeout_s=timeout_s or 0.0)
        return Lane(connection, lane.frame(lane.OPEN, opening.SerializeToString()))

    async def close(self) -> None:
        if self._first is not None:
            self._first.close()


class Lane:
    """One call. What is to be sent first goes with the first message."""

    def __init__(self, connection: socket.socket, opening: bytes) -> None:
        self.trailing: Mapping[str, str | bytes] = {}
        self._connection = connection
        self._opening = opening
        self._frames = lane.Frames()
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._gone = False
        self._loop = asyncio.get_running_loop()

    async def write(self, message: bytes) -> bool:
        return await self._send(lane.frame(lane.MESSAGE, message))

    async def done_writing(self) -> None:
        await self._send(lane.frame(lane.END))

    async def read(self) -> bytes | None:
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

    async def _send(self, frame: bytes) -> bool:
        if self._gone:
            return False
        frame, self._opening = self._opening + frame, b""
        try:
            await self._loop.sock_sendall(self._connection, frame)
        except OSError:  # the agent takes no more; what it said last can still be read
            self._gone = True
        except asyncio.CancelledError:  # half a frame is on its way: nothing may follow it
            self._gone = True
            raise
        return not self._gone


def _connected(path: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    try:
        made.settimeout(_CONNECT_S)
        made.connect(path)
        made.setblocking(False)
    except BaseException:
        made.close()
        raise
    return made
