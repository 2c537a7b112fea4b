"""What compressed archives may come to."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

import pytest
import zstandard

from agent.image.compression import FREE_BYTES, decompress
from shoal.errors import InvalidArgument

MEBIBYTE = bytes(1 << 20)


def drained(chunks: Iterator[bytes]) -> int:
    return sum(map(len, chunks))


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
        drained(decompress([data]))


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_damage_is_told(damage: str) -> None:
    data = bytearray(gzip.compress(bytes(range(256)) * 4000))
    if damage == "cut":
        del data[-100:]
    else:
        data[len(data) // 2] ^= 0xFF
    with pytest.raises(InvalidArgument, match="corrupt"):
        drained(decompress([bytes(data)]))
