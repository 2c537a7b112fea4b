"""A file that a command sends to a daemon, piece by piece."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import IO

from shoal.errors import ShoalError

_CHUNK = 1 << 20


@contextlib.contextmanager
def archive(path: str) -> Iterator[IO[bytes]]:
    """The bytes of a file, or of stdin for "-"."""
    if path == "-":
        yield sys.stdin.buffer
        return
    try:
        file = open(path, "rb")  # noqa: SIM115, PTH123  (only a failure to open is told in these words)
    except OSError as error:
        raise ShoalError(f"open {path}: {(error.strerror or str(error)).lower()}") from error
    with file:
        yield file


async def chunks(source: IO[bytes]) -> AsyncIterator[bytes]:
    read: Callable[[int], bytes] = source.read
    while chunk := await asyncio.to_thread(read, _CHUNK):
        yield chunk
