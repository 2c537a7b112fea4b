"""Following a service until it is as it should be."""

from __future__ import annotations

import asyncio
import io

import pytest

from cli.output.screen import Screen
from cli.service import progress
from cli.service.progress import Drawing, Place, look
from shoal.v1 import types_pb2
from shoal.v1.control_pb2 import ListNodesRequest, ServiceView, WatchServiceResponse
from shoal.v1.types_pb2 import Meta, Service, ServiceSpec, Task, TaskState, TaskStatus
from tests.unit.cli.manager import Manager, Shell

RUNNING = types_pb2.TASK_STATE_RUNNING
SHUTDOWN = types_pb2.TASK_STATE_SHUTDOWN


def view(replicas: int = 2, *, everywhere: bool = False, desired: int = -1) -> ServiceView:
    mode = types_pb2.SERVICE_MODE_GLOBAL if everywhere else types_pb2.SERVICE_MODE_REPLICATED
    spec = ServiceSpec(name="web", mode=mode, replicas=replicas)
    service = Service(meta=Meta(id="svc1", version=10), spec=spec, task_version=2)
    return ServiceView(service=service, desired=replicas if desired < 0 else desired)


def task(
    slot: int,
    state: str = "RUNNING",
    *,
    node: str = "idn1",
    version: int = 2,
    desired: TaskState.ValueType = RUNNING,
    **status: str,
) -> Task:
    return Task(
        meta=Meta(id=f"t{slot}{state}{version}"),
        service_id="svc1",
        task_version=version,
        slot=slot,
        node_id=node,
        desired=desired,
        status=TaskStatus(state=TaskState.Value(f"TASK_STATE_{state}"), **status),
    )


def test_places_without_tasks_are_new() -> None:
    seen = look(view(2), [])
    assert seen.places == (Place("1", "new"), Place("2", "new"))
    assert (seen.done, seen.total, seen.settled) == (0, 2, False)


def test_settled_when_all_run_and_nothing_else_does() -> None:
    assert look(view(2), [task(1), task(2)]).settled
    assert not look(view(2), [task(1), task(2, "STARTING")]).settled
    assert not look(view(1), [task(1), task(2, desired=SHUTDOWN)]).settled
    assert look(view(1), [task(1), task(2, "SHUTDOWN", desired=SHUTDOWN)]).settled


def test_tasks_of_the_version_before_do_not_count() -> None:
    seen = look(view(1), [task(1, version=1)])
    assert (seen.done, seen.leaving, seen.settled) == (0, 1, False)


def test_nobody_waits_for_tasks_of_a_dead_host() -> None:
    tasks = [task(1), task(1, version=1, desired=SHUTDOWN, node="idn3")]
    assert not look(view(1), tasks).settled
    assert look(view(1), tasks, frozenset({"idn3"})).settled


def test_trouble_is_the_task_s_own_or_that_of_the_one_before() -> None:
    failed = task(1, "FAILED", desired=SHUTDOWN, error="exit 1")
    pending = task(2, "PENDING", message="no suitable node")
    seen = look(view(2), [failed, pending])
    assert seen.places == (Place("1", "new", "exit 1"), Place("2", "pending", "no suitable node"))


def test_global_service_has_a_place_per_node() -> None:
    seen = look(view(0, everywhere=True, desired=2), [task(0, node="idn1"), task(0, "STARTING", node="idn2")])
    assert seen.places == (Place("idn1", "running"), Place("idn2", "starting"))
    assert (seen.done, seen.total) == (1, 2)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_terminal_shows_a_line_per_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    Drawing(Screen(out), quiet=False).show(look(view(2), [task(1), task(2, "PENDING", message="no suitable node")]))
    text = out.getvalue()
    assert "overall progress: 1 out of 2 tasks\n" in text
    assert f"1/2: running   [{'=' * 50}]" in text
    assert "2/2: no suitable node\n" in text


def test_many_places_are_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    Drawing(Screen(out), quiet=False).show(look(view(60), []))
    assert out.getvalue().count("\n") == 1


def test_elsewhere_each_line_is_written_once() -> None:
    out = io.StringIO()
    drawing = Drawing(Screen(out), quiet=False)
    for state in ("PENDING", "PENDING", "RUNNING"):
        drawing.show(look(view(1), [task(1, state, message="no suitable node")]))
    assert out.getvalue().splitlines() == [
        "overall progress: 0 out of 1 tasks",
        "1/1: no suitable node",
        "overall progress: 1 out of 1 tasks",
    ]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convergence is sure after a moment: the manager here has nothing more to tell."""
    monkeypatch.setattr(progress, "STEADY_S", 0.01)


@pytest.mark.usefixtures("quick")
def test_create_stays_until_the_service_converged(shoal: Shell, manager: Manager) -> None:
    older = view(1)
    older.service.meta.version = 9
    manager.watched = [
        WatchServiceResponse(service=older, tasks=[task(1)]),  # what the manager saw before the change
        WatchServiceResponse(service=view(1), tasks=[task(1, "PENDING")]),
        WatchServiceResponse(service=view(1), tasks=[task(1)]),
    ]
    assert shoal.lines("service", "create", "web:1") == [
        "svc1",
        "overall progress: 0 out of 1 tasks",
        "overall progress: 1 out of 1 tasks",
        "verify: Service svc1 converged",
    ]


@pytest.mark.usefixtures("quick")
def test_quiet_says_nothing_but_the_id(shoal: Shell, manager: Manager) -> None:
    manager.watched = [WatchServiceResponse(service=view(1), tasks=[task(1)])]
    assert shoal.lines("service", "create", "-q", "web:1") == ["svc1"]


@pytest.mark.usefixtures("quick")
def test_dead_host_is_asked_for_when_only_its_tasks_are_left(shoal: Shell, manager: Manager) -> None:
    manager.nodes["n3"].node.status.state = types_pb2.NODE_STATE_DOWN
    manager.watched = [
        WatchServiceResponse(service=view(1), tasks=[task(1), task(1, version=1, desired=SHUTDOWN, node="idn3")])
    ]
    assert shoal.lines("service", "create", "web:1")[-1] == "verify: Service svc1 converged"
    assert len(manager.of(ListNodesRequest)) == 1


def test_service_that_is_removed_meanwhile_is_an_error(shoal: Shell, manager: Manager) -> None:
    manager.watched = [WatchServiceResponse(service=view(1), tasks=[])]
    manager.ended.set()
    ran = shoal("service", "create", "web:1")
    assert (ran.code, ran.err) == (1, "Error: No such service: svc1\n")


async def test_interrupted_it_leaves_the_rest_to_the_cluster(
    shoal: Shell, manager: Manager, capsys: pytest.CaptureFixture[str]
) -> None:
    from cli.client import Client
    from cli.endpoint import Selection

    manager.watched = [WatchServiceResponse(service=view(1), tasks=[])]
    async with Client(Selection(host=shoal.host)) as client:
        staying = asyncio.create_task(progress.converge(client, view(1).service, quiet=False))
        while "overall progress" not in (out := capsys.readouterr().out):
            await asyncio.sleep(0)
        staying.cancel()
        assert await staying == 0
    assert "Operation continuing in background." in (out := capsys.readouterr().out)
    assert "shoal service ps svc1" in out
