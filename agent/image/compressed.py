"""Layers for the way out: what was made here lies plain, and is compressed when it leaves; what is compressed otherwise
than it is wanted is done anew. The same layer always comes out as the same bytes; it is done once, and what came out is
kept as long as the layer (`Catalog.compressed`)."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable
from typing import Protocol

import zstandard

from agent.image.catalog import Compressed
from agent.image.compression import Compression, decompress
from agent.image.content import CHUNK, Content
from agent.image.holdings import Holdings
from agent.image.layer import Cancelled
from agent.image.manifest import DOCKER_LAYER, OCI_LAYER, Descriptor
from agent.image.threads import Threads
from shoal.errors import InvalidArgument

_GZIP_LEVEL = 6
_ZSTD_LEVEL = 3
_SUFFIX = {Compression.GZIP: "+gzip", Compression.ZSTD: "+zstd"}
# Of media types, docker's too.
_ENDINGS = {Compression.GZIP: ("+gzip", ".gzip"), Compression.ZSTD: ("+zstd", ".zstd")}


class _Packer(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class Compressor:
    """Of the layers in `content`."""

    def __init__(self, content: Content, holdings: Holdings, *, threads: Threads) -> None:
        self._content = content
        self._holdings = holdings
        self._threads = threads

    async def layer(self, layer: Descriptor, wanted: Compression | None, report: Callable[[int], None]) -> Descriptor:
        """A layer as it leaves; where nothing is `wanted` one that is compressed already stays what it is. `report`
        hears how many bytes of another are through. Only while something is `working`, else the result may be gone
        before it is used."""
        kind = wanted or Compression.GZIP
        if layer.media_type.endswith(_ENDINGS[kind]) or not (wanted or is_plain(layer)):
            return layer
        key = f"{layer.digest} {kind.name.lower()}"
        async with self._content.alone(key):
            found = self._holdings.catalog.compressed.get(key)
            if found is None or found.digest not in self._content:
                stop = threading.Event()
                found = await self._threads.run(lambda: self._compress(layer, kind, stop, report), stop=stop.set)
                async with self._holdings.changing:
                    await self._holdings.save(
                        self._holdings.catalog.with_compressed(key, found, here=set(self._content.digests()))
                    )
        return Descriptor(OCI_LAYER + _SUFFIX[kind], found.digest, found.size)

    def _compress(
        self, layer: Descriptor, kind: Compression, stop: threading.Event, report: Callable[[int], None]
    ) -> Compressed:
        packer = _packer(kind)
        writer = self._content.writer()
        try:
            with self._content.open(layer.digest) as blob:
                pieces = iter(lambda: blob.read(CHUNK), b"")
                # What a plain layer begins with is whatever its first file is called.
                for piece in pieces if is_plain(layer) else decompress(pieces):
                    if stop.is_set():
                        raise Cancelled
                    writer.write(packer.compress(piece))
                    report(blob.tell())
            writer.write(packer.flush())
            digest = writer.verify()
            if digest not in self._content:
                writer.commit()
            return Compressed(digest, writer.offset)
        finally:
            writer.abort()


def is_plain(layer: Descriptor) -> bool:
    """Whether a layer lies here uncompressed."""
    return layer.media_type in (OCI_LAYER, DOCKER_LAYER)


def kind_of(text: str) -> Compression | None:
    """ "" leaves it open: what is plain becomes gzip, which every registry and engine knows. Raises InvalidArgument."""
    kinds = {"": None, "gzip": Compression.GZIP, "zstd": Compression.ZSTD}
    if text not in kinds:
        raise InvalidArgument(f"invalid compression {text!r}", hint="it is gzip or zstd")
    return kinds[text]


def _packer(kind: Compression) -> _Packer:
    if kind is Compression.ZSTD:
        return zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compressobj()
    # 31: with gzip's header, in which zlib writes neither a name nor a time.
    return zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, 31)
