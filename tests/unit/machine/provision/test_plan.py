"""Plans: what is still to do, from facts alone. Safe, converging, and empty where all is as wanted."""

from __future__ import annotations

import itertools
import re
from typing import Any

import msgspec
import pytest

from machine.model import Role
from machine.provision.plan import plan
from machine.provision.step import Execute, Secret, Stage, Upload, describe
from machine.run import SILENCE_S


def titles(rack: Any, **facts: Any) -> dict[str, list[str]]:
    return {name: [step.title for step in steps] for name, steps in planned(rack, **facts).items()}


def planned(rack: Any, **facts: Any) -> dict[str, Any]:
    return plan(rack.inventory, facts, rack.versions)


def test_bare_hosts_become_a_cluster(rack: Any) -> None:
    made = titles(rack, **{f"n{number}": rack.bare(number) for number in (1, 2)})
    install = [
        f"install {rack.version}",
        f"make {rack.version} current",
        "write /etc/systemd/system/shoal-agent.service",
        "start the agent at every boot",
        "start the agent",
    ]
    assert made == {
        "n1": [*install, "found the cluster", "see that the node is ready"],
        "n2": [*install, "join as a worker", "label the node", "see that the node is ready"],
    }


def test_no_command_waits_for_longer_than_a_host_may_be_silent(rack: Any) -> None:
    commands = [
        command
        for steps in planned(rack, n1=rack.bare(1), n2=rack.bare(2)).values()
        for step in steps
        if isinstance(step, Execute)
        for command in step.commands
    ]
    waits = [int(each) for command in commands for each in re.findall(r"date \+%s\) \+ (\d+)\)", command.argv[-1])]
    assert waits
    assert max(waits) < SILENCE_S


def test_nothing_is_to_do_where_all_is_as_wanted(rack: Any) -> None:
    made = titles(rack, **{f"n{number}": rack.node(number) for number in (1, 2, 3)})
    assert made == {"n1": [], "n2": [], "n3": []}


def test_stages_follow_one_another_on_every_host(rack: Any) -> None:
    for steps in planned(rack, **{f"n{number}": rack.bare(number) for number in (1, 2, 3)}).values():
        stages = [step.stage for step in steps]
        assert stages == sorted(stages)
        assert stages[-1] is Stage.SETTLE


def test_a_version_that_runs_stays(rack: Any) -> None:
    rack.versions = dict.fromkeys(rack.versions, "0.2.0-bbbbbbbbbbbb")
    assert titles(rack, n1=rack.node(1), n2=rack.node(2))["n2"] == []


@pytest.mark.parametrize(
    ("values", "steps"),
    [
        ({"agent": ""}, ["start the agent"]),
        ({"unit_sha256": "0"}, ["write /etc/systemd/system/shoal-agent.service"]),
        ({"enabled": False}, ["start the agent at every boot"]),
        ({"installed": ()}, [f"install 0.1.0-{'a' * 12}", f"make 0.1.0-{'a' * 12} current"]),
        ({"current": ""}, [f"make 0.1.0-{'a' * 12} current"]),
        ({"membership": None}, ["join as a worker", "label the node", "see that the node is ready"]),
    ],
)
def test_only_what_is_missing_is_done(rack: Any, values: dict[str, Any], steps: list[str]) -> None:
    assert titles(rack, n1=rack.node(1), n2=rack.node(2, **values))["n2"] == steps


def test_labels_of_others_stay_and_missing_ones_are_added(rack: Any) -> None:
    one, two, three = rack.node(1).nodes
    two = msgspec.structs.replace(two, labels={"mine": "1", "zone": "b"})
    (step,) = planned(rack, n1=rack.node(1, nodes=(one, two, three)), n2=rack.node(2))["n2"]
    assert step.argv == ("node", "update", "--label-add", "zone=a", "{node}")


def test_roles_follow_the_inventory(rack: Any) -> None:
    first, second, third = rack.inventory.machines
    promoted = msgspec.structs.replace(third, role=Role.MANAGER)
    rack.inventory = msgspec.structs.replace(rack.inventory, machines=(first, second, promoted), store="etcd")
    made = titles(rack, **{f"n{number}": rack.node(number) for number in (1, 2, 3)})
    assert made == {"n1": [], "n2": [], "n3": ["promote the node"]}


def test_a_manager_that_is_one_is_asked_though_it_is_not_the_first(rack: Any) -> None:
    first, second, third = rack.inventory.machines
    both = (msgspec.structs.replace(third, role=Role.MANAGER), first, second)
    rack.inventory = msgspec.structs.replace(rack.inventory, machines=both, store="etcd")
    steps = planned(rack, n1=rack.node(1), n2=rack.node(2, membership=None), n3=rack.bare(3))
    assert {step.via for step in steps["n2"]} == {"n1"}
    assert "join as a manager" in [step.title for step in steps["n3"]]


def test_doing_the_steps_in_any_prefix_leaves_only_the_rest(rack: Any) -> None:
    """A run that is killed after any step goes on from there: what is done is not planned again."""
    done: list[dict[str, Any]] = [
        {},
        {"installed": (rack.version,)},
        {"current": rack.version},
        {"unit_sha256": rack.node(2).unit_sha256},
        {"enabled": True},
        {"agent": rack.version},
        {"membership": rack.node(2).membership},
    ]
    lengths = [
        len(planned(rack, n1=rack.node(1, nodes=()), n2=rack.bare(2, **facts))["n2"])
        for facts in itertools.accumulate(done, lambda before, after: {**before, **after})
    ]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] - lengths[-1] == 6


def test_plans_say_no_secret() -> None:
    from machine.provision.step import Command

    command = Command(("join", "n1"), stdin=Secret("SHTKN-secret"))
    assert command.shown() == "join n1 < ***"
    assert "secret" not in repr(command)


def test_every_step_can_be_described(rack: Any) -> None:
    for steps in planned(rack, n1=rack.bare(1), n2=rack.bare(2)).values():
        for step in steps:
            assert isinstance(step, Upload) or describe(step)
