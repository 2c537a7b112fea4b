"""Whom the leader calls, and how often."""

from __future__ import annotations

import itertools

from manager.dispatcher.summoner import AT_ONCE, FIRST_S, RARELY_S, Missed, due
from shoal.model.node import Node, NodeState
from tests.unit.manager.conftest import node


def calls(nodes: list[Node], *, seconds: int) -> dict[str, list[int]]:
    """At which second each node is called."""
    missed: dict[str, Missed] = {}
    called: dict[str, list[int]] = {}
    for now in range(seconds):
        found, missed = due(nodes, missed, float(now))
        for each in found:
            called.setdefault(each.meta.id, []).append(now)
    return called


def test_who_does_not_come_is_called_soon_and_then_ever_more_rarely() -> None:
    times = calls([node("w1", state=NodeState.UNKNOWN)], seconds=2000)["w1"]
    assert times[0] == FIRST_S
    waits = [after - before for before, after in itertools.pairwise(times)]
    assert waits == sorted(waits)
    assert waits[-1] == RARELY_S


def test_who_is_there_or_has_no_address_is_not_called() -> None:
    assert calls([node("w1"), node("w2", state=NodeState.DOWN, address="")], seconds=20) == {}


def test_who_came_and_is_missed_again_is_called_soon_again() -> None:
    gone, there = node("w1", state=NodeState.DOWN), node("w1")
    missed: dict[str, Missed] = {}
    for now in range(100):
        _, missed = due([gone], missed, float(now))
    _, missed = due([there], missed, 100.0)
    assert missed == {}
    assert due([gone], missed, 101.0)[1]["w1"].at == 101 + FIRST_S


def test_of_thousands_only_few_are_called_at_once_and_all_in_turn() -> None:
    nodes = [node(f"w{number}", state=NodeState.UNKNOWN) for number in range(5 * AT_ONCE)]
    missed: dict[str, Missed] = {}
    called: set[str] = set()
    for now in range(8):
        found, missed = due(nodes, missed, float(now))
        assert len(found) <= AT_ONCE
        called |= {each.meta.id for each in found}
    assert len(called) == len(nodes)
