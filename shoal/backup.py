"""Backup: the form of the file that holds all records of a cluster's store as of one revision.

    magic and format (10 bytes), then frames: kind (1 byte), length (4), SHA-256 of the payload (32), payload
    H   what the backup is of, as JSON: legible with any tool
    R   some records, msgpack, zstd where the header says so
    E   how many records there are, and the SHA-256 of everything before this frame

A file is whole only with its E: what was cut off, changed, or is of a newer format is told as that. What goes into
one and what becomes of it is `manager/store/backup.py`'s business; this knows no noun and no store.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

import msgspec
import zstandard

from shoal.errors import InvalidArgument, NotFound, Unsupported

T = TypeVar("T")
_MAGIC = b"SHOALBAK"
_FORMAT = 1
_PRELUDE = struct.Struct(">8sH")
_FRAME = struct.Struct(">cI32s")
# No frame of ours comes near it: a length above it is damage, not a reason to take that much memory.
_MAX_FRAME = 64 << 20
_MAX_RECORDS = 256 << 20


class SealedKey(msgspec.Struct, frozen=True):
    """The cluster's seal, encrypted with a key that scrypt (RFC 7914) makes of a passphrase."""

    salt: bytes
    log2_n: int
    r: int
    p: int
    sealed: bytes


class Header(msgspec.Struct, frozen=True):
    """`store` is the kind of store it was taken from, `version` the program's. The cluster's seal is there as `seal` if
    it has a passphrase, as `locked_seal` (`manager/ca/lock.py`) if its managers had an unlock key, or not at all."""

    cluster_id: str
    revision: int
    taken_at_ns: int
    store: str
    version: str
    compressed: bool = True
    seal: SealedKey | None = None
    locked_seal: bytes = b""


class Item(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One record as it stood."""

    key: str
    value: bytes


class Contents(msgspec.Struct, frozen=True):
    """What a whole backup holds; `kinds` counts the records under each first part of their keys."""

    header: Header
    records: int
    kinds: dict[str, int]
    size_bytes: int
    sha256: str


class _End(msgspec.Struct, frozen=True):
    records: int
    sha256: str


_items = msgspec.msgpack.Encoder()
_decode_items = msgspec.msgpack.Decoder(list[Item])


class Encoder:
    """Makes the bytes of one backup: `begin`, any number of `records`, `end`, to be written in this order."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._count = 0
        self._compressor: zstandard.ZstdCompressor | None = None

    def begin(self, header: Header) -> bytes:
        if header.compressed:
            self._compressor = zstandard.ZstdCompressor(level=3)
        return self._hashed(_PRELUDE.pack(_MAGIC, _FORMAT) + _frame(b"H", msgspec.json.encode(header)))

    def records(self, items: list[Item]) -> bytes:
        self._count += len(items)
        payload = _items.encode(items)
        return self._hashed(_frame(b"R", self._compressor.compress(payload) if self._compressor else payload))

    def end(self) -> bytes:
        return _frame(b"E", msgspec.json.encode(_End(self._count, self._digest.hexdigest())))

    def _hashed(self, data: bytes) -> bytes:
        self._digest.update(data)
        return data


class Decoder:
    """Reads one backup from `file`, which is called `name` in messages: `header`, then `batches` to the end.

    Raises InvalidArgument for what is damaged or no backup, Unsupported for a newer format.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._name = name
        self._digest = hashlib.sha256()
        self._count = 0
        self.size_bytes = 0
        self._begin()
        kind, payload = self._next()
        if kind != b"H":
            raise self._damaged("it does not begin with a header")
        self.header = self._decoded(payload, Header)

    def batches(self) -> Iterator[list[Item]]:
        """Records in the order in which they were written; ends only where the file is whole."""
        while True:
            before = self._digest.hexdigest()
            kind, payload = self._next()
            if kind == b"E":
                end = self._decoded(payload, _End)
                if end.sha256 != before or end.records != self._count:
                    raise self._damaged("its parts do not belong together")
                if self._file.read(1):
                    raise self._damaged("something follows its end")
                return
            if kind != b"R":
                raise self._damaged(f"it has a part of the unknown kind {kind!r}")
            try:
                items = _decode_items.decode(self._plain(payload))
            except (msgspec.MsgspecError, zstandard.ZstdError) as error:
                raise self._damaged(str(error)) from error
            self._count += len(items)
            yield items

    @property
    def sha256(self) -> str:
        """Of all that was read so far."""
        return self._digest.hexdigest()

    def _begin(self) -> None:
        prelude = self._read(_PRELUDE.size, "is not a backup of a swarm")
        magic, format = _PRELUDE.unpack(prelude)
        if magic != _MAGIC:
            raise InvalidArgument(f"{self._name} is not a backup of a swarm", hint="'shoal swarm backup' makes one")
        if format > _FORMAT:
            raise Unsupported(
                f"backup {self._name} has format {format}, this program knows {_FORMAT}",
                hint="use the version of shoal that made it, or a later one",
            )

    def _next(self) -> tuple[bytes, bytes]:
        kind, length, digest = _FRAME.unpack(self._read(_FRAME.size))
        if length > _MAX_FRAME:
            raise self._damaged(f"a part of it claims {length} bytes")
        payload = self._read(length)
        if hashlib.sha256(payload).digest() != digest:
            raise self._damaged(f"the part at byte {self.size_bytes - length} does not match its checksum")
        return kind, payload

    def _read(self, length: int, otherwise: str = "") -> bytes:
        data = self._file.read(length)
        if len(data) != length:
            if otherwise:
                raise InvalidArgument(f"{self._name} {otherwise}", hint="'shoal swarm backup' makes one")
            raise InvalidArgument(
                f"backup {self._name} is cut off after {self.size_bytes + len(data)} bytes and {self._count} records",
                hint="copy it again, or use another",
            )
        self.size_bytes += length
        self._digest.update(data)
        return data

    def _plain(self, payload: bytes) -> bytes:
        if not self.header.compressed:
            return payload
        if zstandard.frame_content_size(payload) > _MAX_RECORDS:
            raise self._damaged(f"a part of it claims to be above {_MAX_RECORDS} bytes")
        return zstandard.ZstdDecompressor().decompress(payload, max_output_size=_MAX_RECORDS)

    def _decoded(self, payload: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(payload, type=kind)
        except msgspec.MsgspecError as error:
            raise self._damaged(str(error)) from error

    def _damaged(self, why: str) -> InvalidArgument:
        return InvalidArgument(f"backup {self._name} is damaged: {why}", hint="copy it again, or use another")


def examined(path: Path, name: str = "") -> Contents:
    """What is in the file, every checksum compared; `name` is what messages call it. Raises NotFound and what `Decoder`
    raises."""
    try:
        with path.open("rb") as file:
            decoder = Decoder(file, name or str(path))
            kinds: dict[str, int] = {}
            for items in decoder.batches():
                _count(items, kinds)
            return Contents(decoder.header, sum(kinds.values()), kinds, decoder.size_bytes, decoder.sha256)
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {path}") from error
    except IsADirectoryError as error:
        raise InvalidArgument(f"{path} is a directory, not a backup") from error


def _count(items: Iterable[Item], kinds: dict[str, int]) -> None:
    for item in items:
        kind = item.key.split("/", 2)[1]
        kinds[kind] = kinds.get(kind, 0) + 1


def _frame(kind: bytes, payload: bytes) -> bytes:
    return _FRAME.pack(kind, len(payload), hashlib.sha256(payload).digest()) + payload
