"""Files that a command sends to a daemon or gets from it, piece by piece."""

from __future__ import annotations

import asyncio
import bz2
import contextlib
import lzma
import sys
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import IO

from cli.output.screen import write_stdout
from shoal.errors import ShoalError, Unsupported

_CHUNK = 1 << 20
_PATIENCE_S = 60


@contextlib.contextmanager
def archive(path: str) -> Iterator[IO[bytes]]:
    """The bytes of a file, of what a URL leads to, or of stdin for "-"."""
    if path == "-":
        yield sys.stdin.buffer
        return
    if path.startswith(("http://", "https://")):
        with _fetched(path) as answer:
            yield answer
        return
    try:
        file = open(path, "rb")  # noqa: SIM115, PTH123  (only a failure to open is told in these words)
    except OSError as error:
        raise ShoalError(f"open {path}: {(error.strerror or str(error)).lower()}") from error
    with file:
        yield file


@contextlib.contextmanager
def _fetched(url: str) -> Iterator[IO[bytes]]:
    """From here, not from the daemon: the user's own network, proxies and rights."""
    import urllib.request  # a tenth of a second, for whoever has a URL

    try:
        with urllib.request.urlopen(url, timeout=_PATIENCE_S) as answer:
            yield answer
    except OSError as error:
        raise ShoalError(f"cannot download {url}: {error}") from error


async def save_to(path: str, pieces: AsyncIterator[bytes]) -> None:
    """Into a file, or for "" to stdout, unless a person would have to read that."""
    if not path and sys.stdout.isatty():
        raise ShoalError("cowardly refusing to save to a terminal", hint="use the -o flag or redirect")
    if not path:
        async for piece in pieces:
            write_stdout(piece)
        return
    with saving(path) as file:
        async for piece in pieces:
            file.write(piece)


@contextlib.contextmanager
def saving(path: str) -> Iterator[IO[bytes]]:
    """A file to write that is there, in place of one of that name, once the block has ended well."""
    beside = Path(f"{path}.partial")
    try:
        with beside.open("wb") as file:
            yield file
        beside.rename(path)
    except OSError as error:
        raise ShoalError(f"open {path}: {(error.strerror or str(error)).lower()}") from error
    finally:
        beside.unlink(missing_ok=True)


async def chunks(source: IO[bytes]) -> AsyncIterator[bytes]:
    read: Callable[[int], bytes] = source.read
    while chunk := await asyncio.to_thread(read, _CHUNK):
        yield chunk


async def plain(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """`pieces` without the compression that their first bytes tell of. Raises ShoalError for damaged ones."""
    decompress: Callable[[bytes], bytes] | None = None
    begun = False
    try:
        async for piece in pieces:
            if not begun:
                begun, decompress = True, _decompressor(piece[:6])
            yield decompress(piece) if decompress is not None else piece
    except (zlib.error, lzma.LZMAError, OSError) as error:
        raise ShoalError(f"the archive is damaged: {error}") from error


def _decompressor(head: bytes) -> Callable[[bytes], bytes] | None:
    if head.startswith(b"\x1f\x8b"):
        return zlib.decompressobj(16 + zlib.MAX_WBITS).decompress
    if head.startswith(b"BZh"):
        return bz2.BZ2Decompressor().decompress
    if head == b"\xfd7zXZ\0":
        return lzma.LZMADecompressor().decompress
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        raise Unsupported("an archive compressed with zstd cannot be copied", hint="pipe it through zstd -d")
    return None
