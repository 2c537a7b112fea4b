import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.container.idrange import END, FIRST, SIZE, free_range
from shoal.errors import Exhausted

EVERY = range(FIRST, END, SIZE)


@given(st.sets(st.sampled_from(EVERY), max_size=50))
def test_a_range_is_free_and_within_what_nobody_else_hands_out(taken):
    found = free_range(taken | {0})
    assert found not in taken
    assert FIRST <= found <= END - SIZE
    assert (found - FIRST) % SIZE == 0
    assert found == min(set(EVERY) - taken)


def test_when_all_are_taken_it_is_refused():
    with pytest.raises(Exhausted, match="ranges of ids"):
        free_range(frozenset(EVERY))
