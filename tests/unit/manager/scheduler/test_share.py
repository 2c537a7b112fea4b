import numpy as np
import pytest

from manager.scheduler.candidates import Candidates
from manager.scheduler.share import pour, share


@pytest.mark.parametrize(
    ("amount", "have", "room", "rest", "given"),
    [
        (0, [0, 0], [9, 9], [0, 0], [0, 0]),
        (3, [0, 0], [9, 9], [0, 0], [2, 1]),  # of equal ones the first
        (3, [0, 0], [9, 9], [1, 0], [1, 2]),  # that with the least besides
        (4, [5, 0, 2], [9, 9, 9], [0, 0, 0], [0, 3, 1]),  # the lowest first
        (4, [0, 0, 0], [1, 9, 9], [0, 0, 0], [1, 2, 1]),  # one that is full gives way
        (9, [0, 0], [2, 3], [0, 0], [2, 3]),  # no more than there is room for
        (9, [7], [0], [0], [0]),
        (2, [0, 0, 0], [1, 1, 1], [9, 5, 7], [0, 1, 1]),
        (1_000_000, [0, 1_000_000], [2_000_000] * 2, [0, 0], [1_000_000, 0]),
    ],
)
def test_the_lowest_are_raised_to_one_level(amount, have, room, rest, given):
    assert pour(amount, np.array(have), np.array(room), np.array(rest)).tolist() == given


def test_branches_are_evened_out_before_nodes_and_bad_nodes_come_last():
    candidates = Candidates(np.arange(4), [np.array([1, 0, 1, 1])])
    assert candidates.places.tolist() == [1, 0, 2, 3]
    zeros, bad = np.zeros(4, np.int64), np.array([False, True, False, False])
    counts = share(candidates, 7, have=zeros, room=np.array([2, 9, 2, 2]), rest=zeros, last=bad)
    assert counts.tolist() == [2, 1, 2, 2]
