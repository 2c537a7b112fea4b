"""Upgrades: who is changed when, and by which steps."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from machine.provision import upgrade
from machine.provision.facts import Node
from machine.provision.step import Execute, Upload
from shoal.errors import InvalidArgument

NEW = "0.2.0-bbbbbbbbbbbb"


def node(availability: str = "active") -> Node:
    return Node("id2", True, False, availability, {})


def titles(rack: Any, facts: Any, seen: Node | None, **values: Any) -> list[str]:
    return [step.title for step in upgrade.change(facts, seen, NEW, via="n1", **{"drain": False, **values})]


def test_a_worker_takes_no_tasks_while_it_is_changed(rack: Any) -> None:
    assert titles(rack, rack.node(2), node()) == [
        "pause the node",
        f"make {NEW} current",
        "restart the agent",
        "see that the node is ready",
        "let the node take tasks again",
    ]


def test_a_drained_node_waits_until_it_is_empty(rack: Any) -> None:
    steps = titles(rack, rack.node(2), node(), drain=True)
    assert steps[:2] == ["drain the node", "wait until its tasks are elsewhere"]


def test_a_node_that_was_paused_stays_so(rack: Any) -> None:
    steps = titles(rack, rack.node(2), node("pause"))
    assert not {"pause the node", "let the node take tasks again"} & set(steps)


def test_a_manager_is_restarted_too(rack: Any) -> None:
    assert "restart the manager" in titles(rack, rack.node(1), node())


def test_what_runs_the_version_already_is_not_touched(rack: Any) -> None:
    assert titles(rack, rack.node(2, current=NEW, agent=NEW), node()) == []
    assert titles(rack, rack.node(1, current=NEW, agent=NEW), node()) != []  # its manager is still the old one
    assert titles(rack, rack.node(2, current=NEW), node()) != []


def test_versions_but_this_and_the_one_before_are_removed(rack: Any) -> None:
    old = "0.0.1-cccccccccccc"
    facts = rack.node(2, installed=(old, rack.version, NEW))
    step = upgrade.change(facts, node(), NEW, via="n1", drain=False)[-1]
    assert isinstance(step, Execute)
    (command,) = step.commands
    assert command.stdin.startswith(f"for version in {old}; do")
    assert "remove older versions" not in titles(rack, rack.node(2, installed=(rack.version, NEW)), node())


def test_the_version_is_brought_only_where_it_is_not(rack: Any) -> None:
    (step,) = upgrade.prepare(rack.node(2), NEW)
    assert isinstance(step, Upload)
    assert upgrade.prepare(rack.node(2, installed=(rack.version, NEW)), NEW) == []


def test_going_back_ends_with_the_version_that_was_there(rack: Any) -> None:
    steps = [step.title for step in upgrade.back(rack.node(2), node(), via="n1")]
    assert steps == [f"make {rack.version} current", "restart the agent", "let the node take tasks again"]


@pytest.mark.parametrize("most", [1, 2, 3])
def test_managers_go_first_and_alone_and_no_more_workers_than_allowed(rack: Any, most: int) -> None:
    machines = [msgspec.structs.replace(rack.inventory.machines[1], name=f"w{number}") for number in range(5)]
    facts = {each.name: rack.node(2) for each in machines} | {"n1": rack.node(1)}
    batches = upgrade.batches([*machines, rack.inventory.machines[0]], facts, most)
    assert batches[0] == ["n1"]
    assert all(len(each) <= most for each in batches)
    assert sorted(name for each in batches for name in each) == ["n1", "w0", "w1", "w2", "w3", "w4"]


def test_counts_and_shares_of_machines() -> None:
    assert [upgrade.parse_most(text, 10) for text in ("1", "3", "25%", "5%", "100%")] == [1, 3, 2, 1, 10]
    for text in ("0", "-1", "x", "0%", "1.5"):
        with pytest.raises(InvalidArgument):
            upgrade.parse_most(text, 10)
