"""What comes over a lane is read the same however it is cut, and what is no frame is refused at once and never kept."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from shoal import lane
from shoal.errors import InvalidArgument

KINDS = st.sampled_from([lane.OPEN, lane.MESSAGE, lane.STATUS])
FRAMES = st.lists(st.tuples(KINDS, st.binary(max_size=200)) | st.just((lane.END, b"")), max_size=8)


@given(FRAMES, st.lists(st.integers(1, 60), min_size=1))
def test_frames_come_out_as_they_went_in_however_they_are_cut(frames: list[tuple[int, bytes]], cuts: list[int]) -> None:
    wire = b"".join(lane.frame(*each) for each in frames)
    reader = lane.Frames()
    found, at = [], 0
    while at < len(wire):
        piece = wire[at : at + cuts[at % len(cuts)]]
        found += reader.feed(piece)
        at += len(piece)
    assert found == frames


@given(st.binary(min_size=1, max_size=400), st.integers(1, 30))
def test_garbage_is_refused_or_is_frames_within_bounds(garbage: bytes, cut: int) -> None:
    reader = lane.Frames()
    try:
        for at in range(0, len(garbage), cut):
            for kind, payload in reader.feed(garbage[at : at + cut]):
                assert kind in (lane.OPEN, lane.MESSAGE, lane.END, lane.STATUS)
                assert len(payload) <= len(garbage)
    except InvalidArgument:
        return
    assert garbage[0] in (lane.OPEN, lane.MESSAGE, lane.END, lane.STATUS)


@given(KINDS, st.integers((16 << 20) + 1, 2**32 - 1))
def test_a_frame_that_is_too_long_is_refused_before_it_comes(kind: int, length: int) -> None:
    try:
        lane.Frames().feed(struct.pack("!BI", kind, length))
    except InvalidArgument as refusal:
        assert str(length) in refusal.message
    else:
        raise AssertionError("it waits for more than may come")
