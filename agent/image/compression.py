"""Decompression of archives, told by their first bytes: gzip, zstd, xz, bzip2, or none.

Chunks in, chunks out, at most about 1 MiB each whatever the ratio, within a budget against bombs. All of it is
blocking work for a worker thread.
"""

from __future__ import annotations

import bz2
import enum
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, Protocol, cast

import zstandard

from shoal.errors import InvalidArgument

# What may come out: a gibibyte, and 200 times what went in. Real layers stay below 20; a bomb of zeros reaches 1,000 in
# gzip and far more in zstd.
FREE_BYTES = 1 << 30
MAX_RATIO = 200
_CHUNK = 1 << 20
_FED = 1 << 18
_XZ_MEMORY = 256 << 20


class Compression(enum.Enum):
    NONE = b""
    GZIP = b"\x1f\x8b"
    ZSTD = b"\x28\xb5\x2f\xfd"
    XZ = b"\xfd7zXZ\x00"
    BZIP2 = b"BZh"


def detect(head: bytes) -> Compression:
    """What a stream that begins with `head` (6 bytes are enough) is compressed with."""
    for each in Compression:
        if each.value and head.startswith(each.value):
            return each
    # A zstd file may begin with skippable frames (RFC 8878, 3.1.2).
    if len(head) >= 4 and head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50:
        return Compression.ZSTD
    return Compression.NONE


def decompress(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The plain content of `chunks`. Raises InvalidArgument when the compressed data is damaged, cut off, or a bomb."""
    source = ChunkReader(chunks)
    kind = detect(source.peek(6))
    total = 0
    try:
        for piece in _READERS[kind](source):
            total += len(piece)
            if total > FREE_BYTES + MAX_RATIO * source.taken:
                raise InvalidArgument(
                    f"{source.taken} bytes of {kind.name.lower()} data make more than {total} bytes",
                    hint="it looks like a bomb",
                )
            yield piece
    except (zlib.error, lzma.LZMAError, zstandard.ZstdError, EOFError) as error:
        raise InvalidArgument(f"the {kind.name.lower()} data is corrupt: {error}") from error


class ChunkReader:
    """`read(n)` over an iterable of chunks: n bytes, fewer only at the end."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._held = b""
        self.taken = 0

    def peek(self, size: int) -> bytes:
        self._held = self.read(size) + self._held
        return self._held[:size]

    def read(self, size: int = -1) -> bytes:
        if 0 <= size <= len(self._held):
            data, self._held = self._held[:size], self._held[size:]
            return data
        pieces, got = [self._held], len(self._held)
        self._held = b""
        while size < 0 or got < size:
            piece = next(self._chunks, None)
            if piece is None:
                break
            pieces.append(piece)
            got += len(piece)
            self.taken += len(piece)
        data = b"".join(pieces)
        if 0 <= size < len(data):
            data, self._held = data[:size], data[size:]
        return data


class _Stepwise(Protocol):
    """What LZMADecompressor and BZ2Decompressor have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def _plain(source: ChunkReader) -> Iterator[bytes]:
    while data := source.read(_CHUNK):
        yield data


def _gzip(source: ChunkReader) -> Iterator[bytes]:
    # Not through GzipFile, which takes twice as long. Members follow each other, then perhaps zeros (gzip(1)).
    fed = source.read(_FED)
    while fed:
        step = zlib.decompressobj(zlib.MAX_WBITS | 16)
        while not step.eof:
            if data := step.decompress(fed, _CHUNK):
                yield data
            fed = step.unconsumed_tail or (b"" if step.eof else source.read(_FED))
            if not fed and not step.eof and not data:
                raise EOFError("it is cut off")
        fed = step.unused_data.lstrip(b"\0")
        while not fed and (more := source.read(_FED)):
            fed = more.lstrip(b"\0")


def _zstd(source: ChunkReader) -> Iterator[bytes]:
    # The default window limit (128 MiB) stays: a frame that asks for more is refused.
    plain = zstandard.ZstdDecompressor().stream_reader(cast("BinaryIO", source), read_across_frames=True)
    while data := plain.read(_CHUNK):
        yield data


def _stepwise(make: Callable[[], _Stepwise]) -> Callable[[ChunkReader], Iterator[bytes]]:
    def run(source: ChunkReader) -> Iterator[bytes]:
        step, fed = make(), source.read(1 << 16)
        while True:
            try:
                data = step.decompress(fed, _CHUNK)
            except OSError as error:  # bz2's word for damaged data
                raise EOFError(str(error)) from error
            if data:
                yield data
            fed = b""
            if step.eof:
                fed = step.unused_data.lstrip(b"\0") or source.read(1 << 16)
                if not fed:
                    return
                step = make()
            elif step.needs_input:
                fed = source.read(1 << 16)
                if not fed:
                    raise EOFError("it is cut off")

    return run


_READERS: dict[Compression, Callable[[ChunkReader], Iterator[bytes]]] = {
    Compression.NONE: _plain,
    Compression.GZIP: _gzip,
    Compression.ZSTD: _zstd,
    Compression.XZ: _stepwise(lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY)),
    Compression.BZIP2: _stepwise(bz2.BZ2Decompressor),
}
