"""`node`: what is asked of the manager, and how its answers look."""

from __future__ import annotations

import json

from shoal.v1 import control_pb2, types_pb2
from tests.unit.cli.manager import Manager, Shell


def test_list_marks_the_node_that_answers(shoal: Shell) -> None:
    lines = shoal.lines("node", "ls")
    assert lines[0].split("  ")[0] == "ID"
    assert lines[0].split() == "ID HOSTNAME STATUS AVAILABILITY MANAGER STATUS ENGINE VERSION".split()
    assert lines[1].split() == "idn1 * n1 Ready Active Leader 1.2".split()
    assert lines[2].split() == "idn2 n2 Ready Active 1.2".split()


def test_quiet_list_has_bare_ids(shoal: Shell) -> None:
    assert shoal.lines("node", "ls", "-q") == ["idn1", "idn2", "idn3"]


def test_list_by_template_and_as_json(shoal: Shell) -> None:
    assert shoal.lines("node", "ls", "--format", "{{.Hostname}} {{.Self}}")[:2] == ["n1 true", "n2 false"]
    assert json.loads(shoal.lines("node", "ls", "--json")[1])["Hostname"] == "n2"


def test_filters_go_to_the_manager(shoal: Shell, manager: Manager) -> None:
    shoal("node", "ls", "--filter", "role=worker")
    (asked,) = manager.of(control_pb2.ListNodesRequest)
    assert [(each.key, each.value) for each in asked.filters] == [("role", "worker")]


def test_update_changes_what_was_said_and_keeps_the_rest(shoal: Shell, manager: Manager) -> None:
    manager.nodes["n2"].node.spec.labels.update({"zone": "a", "old": ""})
    done = shoal.lines(
        "node", "update", "--availability", "drain", "--label-add", "disk=ssd", "--label-rm", "old", "n2"
    )
    assert done == ["n2"]
    (asked,) = manager.of(control_pb2.UpdateNodeRequest)
    assert (asked.node, asked.version) == ("idn2", 3)
    assert asked.spec.availability == types_pb2.AVAILABILITY_DRAIN
    assert asked.spec.role == types_pb2.ROLE_WORKER
    assert dict(asked.spec.labels) == {"zone": "a", "disk": "ssd"}


def test_update_refuses_words_that_are_none(shoal: Shell, manager: Manager) -> None:
    assert 'invalid availability "sleepy"' in shoal("node", "update", "--availability", "sleepy", "n2").err
    assert 'invalid role "boss"' in shoal("node", "update", "--role", "boss", "n2").err
    assert "key gone doesn't exist in node's labels" in shoal("node", "update", "--label-rm", "gone", "n2").err
    assert not manager.of(control_pb2.UpdateNodeRequest)


def test_promote_says_what_came_of_each(shoal: Shell, manager: Manager) -> None:
    ran = shoal("node", "promote", "n1", "n2", "n9")
    assert ran.out.splitlines() == ["Node n1 is already a manager.", "Node n2 promoted to a manager in the swarm."]
    assert (ran.code, ran.err) == (1, "Error: No such node: n9\n")
    (asked,) = manager.of(control_pb2.UpdateNodeRequest)
    assert asked.spec.role == types_pb2.ROLE_MANAGER


def test_demote(shoal: Shell) -> None:
    lines = shoal.lines("node", "demote", "n1", "n2")
    assert lines == ["Node n1 demoted in the swarm.", "Node n2 is already a worker."]


def test_remove_goes_on_behind_a_failure(shoal: Shell, manager: Manager) -> None:
    ran = shoal("node", "rm", "--force", "n9", "n3")
    assert (ran.code, ran.out, ran.err) == (1, "n3\n", "Error: No such node: n9\n")
    assert [(each.node, each.force) for each in manager.of(control_pb2.RemoveNodeRequest)] == [
        ("n9", True),
        ("n3", True),
    ]


def test_inspect_prints_documents_of_what_is_found(shoal: Shell) -> None:
    ran = shoal("node", "inspect", "self", "n9")
    assert [each["Description"]["Hostname"] for each in json.loads(ran.out)] == ["n1"]
    assert (ran.code, ran.err) == (1, "Error: No such node: n9\n")


def test_inspect_for_people(shoal: Shell, manager: Manager) -> None:
    manager.nodes["n1"].node.spec.labels["zone"] = "a"
    out = shoal("node", "inspect", "--pretty", "n1").out
    for piece in ("ID:\t\t\tidn1", " - zone=a", " State:\t\t\tReady", " CPUs:\t\t\t2", " Memory:\t\t4GiB"):
        assert piece in out
    assert shoal("node", "inspect", "--pretty", "-f", "{{.ID}}", "n1").code == 1


def test_tasks_of_this_node_when_none_is_named(shoal: Shell, manager: Manager) -> None:
    assert shoal.lines("node", "ps")[0].startswith("ID")
    assert shoal("node", "ps", "n9").err == "Error: No such node: n9\n"
    first, second = manager.of(control_pb2.ListTasksRequest)
    assert [each.value for each in (*first.filters, *second.filters)] == ["self", "n9"]
