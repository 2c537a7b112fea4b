"""Bound: what a server takes from its callers at most: bytes of a message, streams of a connection, calls at once.

gRPC itself refuses what is above the largest message of a server, and lets calls above `streams` wait at the caller's
side. A service that needs less says so (`service_bytes`), and its callers hear a sentence.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, NamedTuple

from shoal.errors import Exhausted, ShoalError

# A message holds at most one blob chunk or one batch; nothing of ours comes near this.
MAX_MESSAGE_BYTES = 16 << 20


class Bounds(NamedTuple):
    """Of one server. `service_bytes`: full name of a service → bytes of a message, where that is less than
    `message_bytes`. `calls`: of all callers together (None: as many as there are). A connection without calls ends
    after `idle_s` (0: never). `ahead_bytes` of a stream may come before it is read (see `ahead`)."""

    message_bytes: int = MAX_MESSAGE_BYTES
    service_bytes: Mapping[str, int] = {}
    streams: int = 1_000
    calls: int | None = None
    idle_s: float = 0.0
    ahead_bytes: int = 0

    def options(self) -> list[tuple[str, int]]:
        """For gRPC."""
        options = [
            ("grpc.max_receive_message_length", self.message_bytes),
            ("grpc.max_concurrent_streams", self.streams),
            *ahead(self.ahead_bytes),
        ]
        if self.idle_s:
            options.append(("grpc.max_connection_idle_ms", int(self.idle_s * 1000)))
        return options

    def bytes_of(self, method: str) -> int:
        """How long a message of `method` ("/package.Service/Method") may be."""
        return self.service_bytes.get(method.rpartition("/")[0].lstrip("/"), self.message_bytes)


DEFAULT_BOUNDS = Bounds()


def ahead(size: int) -> list[tuple[str, int]]:
    """For gRPC: how much of a stream may come before it is read. 0: as much as the way there holds, which gRPC finds
    out by a ping and an answer for each burst of data; for thousands of small streams they cost as much as the data."""
    return [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", size)] if size else []


def measured(deserialize: Callable[[bytes], Any] | None, method: str, at_most: int) -> Callable[[bytes], Any] | None:
    """`deserialize` that gives an error instead of a message that is too long: raised here, gRPC would hide it."""
    if deserialize is None:
        return None

    def parse(data: bytes) -> Any:
        if len(data) > at_most:
            return Exhausted(f"a message of {method.lstrip('/')} has {len(data)} bytes, {at_most} are allowed")
        return deserialize(data)

    return parse


def honest(request: Any) -> Any:
    """The request, or the stream of them. Raises what `measured` gave instead of one."""
    if isinstance(request, ShoalError):
        raise request
    return _honest_stream(request) if hasattr(request, "__aiter__") else request


async def _honest_stream(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        if isinstance(request, ShoalError):
            raise request
        yield request
