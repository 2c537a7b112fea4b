"""What the portable executor sends its helper."""

from __future__ import annotations

from agent.kernel.portable import Portable, _unpacked
from agent.kernel.program import Block, Fd, Op


def test_a_block_that_comes_again_is_sent_no_more() -> None:
    executor, block = Portable(), Block([Op("look", "getpid", ())])
    parcels = [executor._parcel(block, {}) for _ in range(4)]
    assert parcels == [(0, block.ops), (1, block.ops), (1, None), (1, None)]
    executor.close()
    assert executor._parcel(block, {}) == (0, block.ops)


def test_a_block_with_descriptors_is_sent_each_time_with_their_places() -> None:
    executor, block = Portable(), Block([Op("close it", "close", (Fd(7),))])
    for _ in range(3):
        assert executor._parcel(block, {7: 0}) == (0, (Op("close it", "close", (Fd(0),)),))


def test_a_block_without_ops_is_kept_like_any_other() -> None:
    executor, block, kept = Portable(), Block([]), dict[int, Block]()
    for _ in range(4):
        assert _unpacked(executor._parcel(block, {}), kept, []).ops == ()
