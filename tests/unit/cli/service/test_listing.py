"""`service ls` and `service ps`: docker's columns and words."""

from __future__ import annotations

import json

import pytest

from cli.service.words import task_rows
from shoal.v1 import types_pb2
from shoal.v1.control_pb2 import ListServicesRequest, ListTasksRequest, TaskView
from shoal.v1.types_pb2 import Meta, Port, Task, TaskState, TaskStatus
from tests.unit.cli.manager import SECOND, Manager, Shell

NOW = 1_000 * SECOND


def view(id: str, slot: int, state: str, *, ago: int = 5, node: str = "n1", desired: str = "RUNNING", **status: str):  # type: ignore[no-untyped-def]
    return TaskView(
        task=Task(
            meta=Meta(id=id, created_at_ns=NOW - ago * SECOND),
            service_id="svc1",
            slot=slot,
            node_id=f"id{node}" if node else "",
            desired=TaskState.Value(f"TASK_STATE_{desired}"),
            status=TaskStatus(state=TaskState.Value(f"TASK_STATE_{state}"), at_ns=NOW - ago * SECOND, **status),
        ),
        service_name="web",
        node_name=node,
        image="web:1",
    )


def test_history_hangs_below_the_task_of_its_place() -> None:
    views = [
        view("old", 1, "FAILED", ago=90, desired="SHUTDOWN", error="task: non-zero exit (1)"),
        view("older", 1, "SHUTDOWN", ago=200, desired="SHUTDOWN"),
        view("two", 2, "RUNNING", node="n2"),
        view("one", 1, "STARTING"),
    ]
    rows = task_rows(views, whole=False, resolve=True, now_ns=NOW)
    assert [(row["ID"], row["Name"], row["CurrentState"]) for row in rows] == [
        ("one", "web.1", "Starting 5 seconds ago"),
        ("old", " \\_ web.1", "Failed about a minute ago"),
        ("older", " \\_ web.1", "Shutdown 3 minutes ago"),
        ("two", "web.2", "Running 5 seconds ago"),
    ]
    assert rows[1]["Error"] == '"task: non-zero exit (1)"'


def test_task_without_a_node_says_why() -> None:
    why = "no suitable node (scheduling constraints not satisfied on 3 nodes)"
    (row,) = task_rows([view("a", 1, "PENDING", node="", message=why)], whole=False, resolve=True, now_ns=NOW)
    assert (row["Node"], row["Error"]) == ("", f'"{why}"')


def test_long_errors_are_cut_and_kept_whole_on_demand() -> None:
    long = view("a" * 25, 1, "FAILED", error="e" * 200)
    (cut,) = task_rows([long], whole=False, resolve=True, now_ns=NOW)
    (whole,) = task_rows([long], whole=True, resolve=True, now_ns=NOW)
    assert (len(cut["ID"]), len(cut["Error"])) == (12, 92)
    assert (len(whole["ID"]), len(whole["Error"])) == (25, 202)


def test_ids_instead_of_names_and_host_ports() -> None:
    one = view("a", 0, "RUNNING")
    one.task.status.ports.append(Port(protocol=types_pb2.PORT_PROTOCOL_UDP, target=53, published=5300))
    (row,) = task_rows([one], whole=False, resolve=False, now_ns=NOW)
    assert (row["Name"], row["Node"], row["Ports"]) == ("svc1.idn1", "idn1", "*:5300->53/udp")


@pytest.fixture
def web(manager: Manager) -> types_pb2.Service:
    service = types_pb2.Service(meta=Meta(id="svc1abcdefghijklmnop"))
    service.spec.name, service.spec.mode, service.spec.replicas = "web", types_pb2.SERVICE_MODE_REPLICATED, 3
    service.spec.task.container.image = "web:1"
    service.ports.add(
        protocol=types_pb2.PORT_PROTOCOL_TCP, target=80, published=8080, mode=types_pb2.PUBLISH_MODE_INGRESS
    )
    manager.services["web"] = service
    return service


def test_list_of_services(shoal: Shell, web: types_pb2.Service) -> None:
    header, line = shoal.lines("service", "ls")
    assert header.split() == ["ID", "NAME", "MODE", "REPLICAS", "IMAGE", "PORTS"]
    assert line.split() == ["svc1abcdefgh", "web", "replicated", "1/3", "web:1", "*:8080->80/tcp"]
    web.spec.task.placement.max_per_node = 2
    assert "1/3 (max 2 per node)" in shoal.lines("service", "ls")[1]
    assert shoal.lines("service", "ls", "-q") == ["svc1abcdefgh"]
    assert json.loads(shoal.lines("service", "ls", "--format", "json")[0])["Replicas"] == "1/3 (max 2 per node)"


def test_filters_go_to_the_manager(shoal: Shell, manager: Manager) -> None:
    shoal("service", "ls", "-f", "mode=global")
    assert [(each.key, each.value) for each in manager.of(ListServicesRequest)[0].filters] == [("mode", "global")]


@pytest.mark.usefixtures("web")
def test_tasks_of_services(shoal: Shell, manager: Manager) -> None:
    manager.tasks = {"a": view("a", 1, "RUNNING")}
    header, line = shoal.lines("service", "ps", "--filter", "desired-state=running", "web")
    assert header.split("  ")[0] == "ID"
    assert "DESIRED STATE" in header
    assert line.split()[:5] == ["a", "web.1", "web:1", "n1", "Running"]
    asked = manager.of(ListTasksRequest)[0].filters
    assert [(each.key, each.value) for each in asked] == [("desired-state", "running"), ("service", "web")]
    ran = shoal("service", "ps", "none", "web")
    assert (ran.code, ran.err, len(ran.out.splitlines())) == (1, "Error: No such service: none\n", 2)
    ran = shoal("service", "ps", "none")
    assert (ran.code, ran.out) == (1, "")
