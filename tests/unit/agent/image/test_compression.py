"""Compressed streams as strangers make them: several members, zeros behind, cut off, damaged, bombs."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
from collections.abc import Callable, Iterator

import pytest
import zstandard

from agent.image.compression import FREE_BYTES, decompress
from shoal.errors import InvalidArgument

MEBIBYTE = bytes(1 << 20)
PLAIN = random.Random(1).randbytes(100_000) + bytes(3 << 20) + b"end"
KINDS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
    "none": bytes,
}


def pieces(data: bytes, size: int = 7001) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


@pytest.mark.parametrize("kind", KINDS)
def test_all_of_it_comes_out_in_pieces_of_a_bounded_size(kind: str) -> None:
    found = list(decompress(pieces(KINDS[kind](PLAIN))))
    assert b"".join(found) == PLAIN
    assert max(map(len, found)) <= 1 << 20


@pytest.mark.parametrize("kind", ["gzip", "zstd", "xz", "bzip2"])
def test_members_follow_each_other(kind: str) -> None:
    assert b"".join(decompress(pieces(KINDS[kind](b"one") + KINDS[kind](PLAIN)))) == b"one" + PLAIN


def test_zeros_behind_gzip_are_padding() -> None:
    packed = gzip.compress(b"one") + bytes(20_000)
    assert b"".join(decompress(pieces(packed))) == b"one"
    assert b"".join(decompress(pieces(packed + gzip.compress(b"two")))) == b"onetwo"


# zstd's reader cannot tell that a stream was cut off; whoever reads a layer compares its digest.
@pytest.mark.parametrize("kind", ["gzip", "xz", "bzip2"])
@pytest.mark.parametrize("share", [0.3, 0.999])
def test_what_is_cut_off_or_damaged_is_refused(kind: str, share: float) -> None:
    packed = KINDS[kind](random.Random(2).randbytes(200_000))
    with pytest.raises(InvalidArgument, match=rf"the {kind} data is corrupt"):
        list(decompress(pieces(packed[: int(len(packed) * share)])))
    hurt = bytearray(packed)
    hurt[int(len(packed) * share / 2)] ^= 0xFF
    with pytest.raises(InvalidArgument, match=rf"the {kind} data is corrupt"):
        list(decompress(pieces(bytes(hurt))))


def test_garbage_behind_gzip_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="corrupt"):
        list(decompress(pieces(gzip.compress(b"one") + b"garbage")))


def test_a_bomb_is_refused_before_it_has_burst() -> None:
    """200 GiB of zeros in some kilobytes: the same frame of a gibibyte, 200 times."""
    frame = zstandard.ZstdCompressor(level=1)
    packed = frame.compressobj(size=FREE_BYTES)
    one = b"".join([*(packed.compress(MEBIBYTE) for _ in range(FREE_BYTES >> 20)), packed.flush()])
    seen = 0
    with pytest.raises(InvalidArgument, match="bomb"):
        for piece in decompress([one] * 200):
            seen += len(piece)
    assert seen <= FREE_BYTES + 200 * 200 * len(one)


def test_a_window_that_would_eat_the_memory_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=30, enable_ldm=True)
    packed = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    data = packed.compress(MEBIBYTE) + packed.flush()
    with pytest.raises(InvalidArgument, match="corrupt"):
        list(decompress([data]))
