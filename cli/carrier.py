"""Carrier: what brings calls to a daemon, as bytes: `lane` on this host, `channel` (gRPC) to all others.

`calls` makes of it what commands use: messages, and errors that people can act on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

UNIMPLEMENTED, UNAVAILABLE = 12, 14
Metadata = Sequence[tuple[str, str]]


class Failure(Exception):
    """A call that did not go well: its status as gRPC numbers them, and what came beside it."""

    def __init__(self, code: int, message: str, trailing: Mapping[str, str | bytes]) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.trailing = trailing


class Stream(Protocol):
    """One call. `trailing` is what came beside its status, once `read` has said that it is over."""

    trailing: Mapping[str, str | bytes]

    async def write(self, message: bytes, *, last: bool = False) -> bool:
        """Whether more may be sent. Of a call that is over nothing is; `read` tells how it went. `last`: as
        `done_writing`, on the same way."""

    async def done_writing(self) -> None:
        """These were all messages."""

    async def read(self) -> bytes | None:
        """The next message; None after the last. Raises Failure."""

    def cancel(self) -> None:
        """Leave. A call that is over does not mind."""


class Carrier(Protocol):
    def open(self, method: str, metadata: Metadata, timeout_s: float | None) -> Stream:
        """Begin a call of "/PACKAGE.SERVICE/METHOD"."""

    async def close(self) -> None:
        """Calls under way are over."""
