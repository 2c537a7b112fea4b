"""Lane: the way to an agent on the same host that needs no gRPC, which is most of what a short command would import.

One connection is one call, so that calls never mix and a connection that ends is a call that is cancelled. On it go
frames: a kind, a length, and bytes. The client opens with the method, sends messages and perhaps that these were all;
the agent sends messages and, last, how it went. Messages, metadata and status are gRPC's own. Pure; `agent/api/lane.py`
answers, `cli/lane.py` asks.
"""

from __future__ import annotations

import struct

from shoal.bound import MAX_MESSAGE_BYTES
from shoal.errors import InvalidArgument

# Kinds of frames. OPEN and END are the client's, STATUS is the agent's.
OPEN, MESSAGE, END, STATUS = 1, 2, 3, 4
MAX_OPEN_BYTES = 64 << 10
_HEADER = struct.Struct("!BI")
_AT_MOST = {OPEN: MAX_OPEN_BYTES, MESSAGE: MAX_MESSAGE_BYTES, END: 0, STATUS: MAX_OPEN_BYTES}


def beside(socket: str) -> str:
    """Where the lane of an agent is that serves at `socket`."""
    return f"{socket}.lane"


def frame(kind: int, payload: bytes = b"") -> bytes:
    """One frame, as it goes over the wire."""
    return _HEADER.pack(kind, len(payload)) + payload


class Frames:
    """Takes bytes as they come and gives frames. What it holds is bounded by who feeds it: one read, and one frame that
    is not whole yet."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The frames that are whole now. Raises InvalidArgument for what can be none, as soon as that can be seen."""
        self._held += data
        found = []
        at = 0
        while at < len(self._held):
            if self._held[at] not in _AT_MOST:
                raise InvalidArgument(f"no frame of a lane begins with {self._held[at]}")
            if len(self._held) - at < _HEADER.size:
                break
            kind, length = _HEADER.unpack_from(self._held, at)
            if length > _AT_MOST[kind]:
                raise InvalidArgument(f"a frame of kind {kind} has {length} bytes, {_AT_MOST[kind]} are allowed")
            end = at + _HEADER.size + length
            if len(self._held) < end:
                break
            found.append((kind, bytes(self._held[at + _HEADER.size : end])))
            at = end
        del self._held[:at]
        return found
