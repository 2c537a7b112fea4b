"""Paces: a burst is free, what is above the pace waits as long as it must, and not longer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from manager.dispatcher.pace import Pace


def test_a_burst_is_free_and_the_rest_waits() -> None:
    pace = Pace(burst=10, per_s=2)
    assert pace.take(10, 100.0) == 0
    assert pace.take(4, 100.0) == 2
    assert pace.take(0, 102.0) == 0
    assert pace.take(1, 200.0) == 0


def test_single_ones_are_refused_until_there_is_one_again() -> None:
    pace = Pace(burst=2, per_s=0.5)
    assert [pace.allows(at) for at in (10.0, 10.0, 10.0, 11.0, 12.0, 12.0)] == [True, True, False, False, True, False]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=50))
def test_who_waits_as_told_never_exceeds_the_pace(counts: list[int]) -> None:
    pace, now = Pace(burst=20, per_s=10), 5.0
    for count in counts:
        now += pace.take(count, now)
    assert now - 5.0 >= (sum(counts) - 20) / 10 - 1e-6
