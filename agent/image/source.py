"""Where blobs come from: a registry or another node of the cluster, behind one small port."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Protocol

import msgspec


class BlobSource(Protocol):
    """Something that has content by digest; what it sends is not trusted."""

    async def open(self, digest: str, offset: int, /) -> tuple[int, str, AsyncGenerator[bytes, None]]:
        """The blob's whole size, its media type ("" when not known), and its bytes from `offset`.

        Raises NotFound where it does not have it, Unavailable where another try or another source may help; so does
        the iterator. Closing the iterator (an asynchronous generator) ends the transfer.
        """


class Progress(msgspec.Struct, frozen=True):
    """What a user sees of one layer, in docker's words; bytes are 0 where the word says it all."""

    id: str
    status: str
    current_bytes: int = 0
    total_bytes: int = 0


Report = Callable[[Progress], None]


def silent(_: Progress) -> None:
    """For callers whom nobody watches."""
