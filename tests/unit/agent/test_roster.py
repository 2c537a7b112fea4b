"""Which manager a node calls next, and when it moves: spread by chance, to those that serve first."""

from __future__ import annotations

import random
from collections import Counter

from agent.roster import Roster

ABC = ("a", "b", "c")


def test_nodes_begin_with_any_manager() -> None:
    chance = random.Random(1)
    first = Counter(Roster(ABC, chance=chance.random).managers[0] for _ in range(900))
    assert all(200 < first[each] < 400 for each in ABC)


def test_the_next_one_is_called_when_one_is_lost_and_none_is_forgotten() -> None:
    roster = Roster(ABC, chance=lambda: 0)
    called = []
    for _ in range(6):
        called.append(roster.managers[0])
        roster.lost(called[-1])
    assert called == list(ABC) * 2


def test_those_that_serve_are_called_first() -> None:
    roster = Roster(["c"], chance=lambda: 0)
    roster.learn(["b", "c", "a"], 2, connected="c")
    assert roster.managers == ("c", "b", "a")
    roster.lost("c")
    assert roster.managers == ("b", "a", "c")


def test_one_that_the_cluster_does_not_name_is_dropped_but_not_the_last_resort() -> None:
    roster = Roster(["old"], chance=lambda: 0)
    roster.learn(["a", "b"], 2, connected="old")
    assert roster.managers == ("a", "b")
    alone = Roster(["old"], chance=lambda: 0)
    alone.learn(["a"], 0, connected="old")
    assert alone.managers == ("a",)
    alone.learn([], 0, connected="old")
    assert alone.managers == ("a",)


def test_as_many_move_to_a_manager_that_serves_again_as_make_its_share() -> None:
    chance = random.Random(2)
    moved = 0
    for _ in range(900):
        roster = Roster(["a"], chance=chance.random)
        assert not roster.learn(ABC, 2, connected="a"), "nothing came: this is what the session began with"
        if roster.learn(ABC, 3, connected="a"):
            moved += 1
            assert roster.managers[1] == "c"
        assert not roster.learn(ABC, 3, connected="a")
        assert not roster.learn(ABC, 1, connected="a")
    assert 200 < moved < 400
