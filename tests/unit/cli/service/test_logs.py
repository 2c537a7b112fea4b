"""`service logs`: several tasks on several nodes, one output."""

from __future__ import annotations

import pytest

from cli.service.merge import Printer, Said, in_time
from shoal.v1 import types_pb2
from shoal.v1.control_pb2 import ServiceView, TaskView, WatchServiceResponse
from shoal.v1.engine_pb2 import LogLine, ReadLogsRequest
from shoal.v1.types_pb2 import Meta, Task, TaskState, TaskStatus
from tests.unit.cli.manager import Manager, Shell


def said(source: str, at: int, data: bytes, *, stderr: bool = False) -> Said:
    return Said(source, LogLine(at_ns=at, stderr=stderr, data=data))


def test_lines_are_prefixed_and_aligned() -> None:
    printer = Printer(timestamps=False, raw=False)
    printer.widen("web.10.x@n1")
    assert printer.render(said("web.1.x@n1", 1, b"hello\n")) == b"web.1.x@n1     | hello\n"


def test_parts_of_a_line_are_put_together_unless_somebody_else_speaks() -> None:
    printer = Printer(timestamps=False, raw=False)
    out = [
        printer.render(said(*each)) for each in [("a", 1, b"he"), ("a", 2, b"llo"), ("b", 3, b"x\n"), ("a", 4, b"!\n")]
    ]
    assert b"".join(out) == b"a    | hello\nb    | x\na    | !\n"


def test_stderr_does_not_break_lines_of_stdout() -> None:
    printer = Printer(timestamps=False, raw=False)
    printer.render(said("a", 1, b"he"))
    assert printer.render(said("b", 2, b"x\n", stderr=True)) == b"b    | x\n"
    assert printer.render(said("a", 3, b"llo\n")) == b"llo\n"


def test_raw_is_what_was_said() -> None:
    printer = Printer(timestamps=False, raw=True)
    out = [printer.render(said("a", 1, b"\x00he")), printer.render(said("b", 2, b"x\n"))]
    assert out == [b"\x00he", b"x\n"]


def test_timestamps_stand_first() -> None:
    assert Printer(timestamps=True, raw=False).render(said("a", 1, b"x\n")) == (
        b"1970-01-01T00:00:00.000000001Z a    | x\n"
    )


async def test_merging_keeps_the_order_of_each_and_of_time() -> None:
    async def of(source: str, *times: int):  # type: ignore[no-untyped-def]
        for at in times:
            yield said(source, at, b"")

    merged = [each async for each in in_time([of("a", 1, 4, 3), of("b", 2, 5), of("c")])]
    assert [(each.source, each.line.at_ns) for each in merged] == [("a", 1), ("b", 2), ("a", 4), ("a", 3), ("b", 5)]


@pytest.fixture
def web(manager: Manager) -> types_pb2.Service:
    service = types_pb2.Service(meta=Meta(id="svc1"))
    service.spec.name = "web"
    manager.services["web"] = service
    for slot, node in ((1, "n1"), (2, "n2"), (3, "n3")):
        add(manager, f"task{slot}", slot, node)
    manager.logs = {
        "ctask1": [LogLine(at_ns=10, data=b"one\n"), LogLine(at_ns=30, data=b"three\n")],
        "ctask2": [LogLine(at_ns=20, data=b"two\n")],
        "ctask3": [LogLine(at_ns=40, data=b"four\n", stderr=True)],
    }
    return service


def add(manager: Manager, id: str, slot: int, node: str, state: str = "RUNNING") -> Task:
    container = f"c{id}" if state != "PENDING" else ""
    status = TaskStatus(state=TaskState.Value(f"TASK_STATE_{state}"), container_id=container)
    task = Task(meta=Meta(id=id), service_id="svc1", slot=slot, node_id=f"id{node}", status=status)
    manager.tasks[id] = TaskView(task=task, service_name="web", node_name=node)
    return task


@pytest.mark.usefixtures("web")
def test_all_tasks_in_the_order_of_time(shoal: Shell) -> None:
    ran = shoal("service", "logs", "web")
    assert ran.code == 0
    assert ran.out.splitlines() == [
        "web.1.task1@n1    | one",
        "web.2.task2@n2    | two",
        "web.1.task1@n1    | three",
    ]
    assert ran.err == "web.3.task3@n3    | four\n"


@pytest.mark.usefixtures("web")
def test_shapes_of_the_prefix(shoal: Shell) -> None:
    assert shoal("service", "logs", "--no-task-ids", "web").out.splitlines()[0] == "web.1@n1    | one"
    assert shoal("service", "logs", "--no-resolve", "web").out.splitlines()[0] == "svc1.1.task1@idn1    | one"
    assert shoal("service", "logs", "--raw", "web").out.splitlines() == ["one", "two", "three"]


@pytest.mark.usefixtures("web")
def test_one_task(shoal: Shell) -> None:
    assert shoal("service", "logs", "web.2").out == "web.2.task2@n2    | two\n"
    ran = shoal("service", "logs", "none")
    assert (ran.code, ran.err) == (1, "Error: no such task or service: none\n")


@pytest.mark.usefixtures("web")
def test_tail_and_since_are_each_task_s(shoal: Shell, manager: Manager) -> None:
    shoal("service", "logs", "--tail", "0", "--since", "7", "web")
    asked = manager.of(ReadLogsRequest)
    assert [(each.HasField("tail"), each.tail, each.since_ns) for each in asked] == [(True, 0, 7 * 10**9)] * 3
    assert shoal("service", "logs", "--tail", "few", "web").code == 1
    assert shoal("service", "logs", "--since", "once", "web").code == 1


@pytest.mark.usefixtures("web")
def test_node_that_is_down_is_told_and_keeps_nobody(shoal: Shell, manager: Manager) -> None:
    manager.nodes["n2"].node.status.state = types_pb2.NODE_STATE_DOWN
    ran = shoal("service", "logs", "web")
    assert ran.code == 1
    assert ran.out.splitlines() == ["web.1.task1@n1    | one", "web.1.task1@n1    | three"]
    assert "Error: logs of web.2.task2@n2 cannot be read: node n2 is down" in ran.err


@pytest.mark.usefixtures("web")
def test_what_went_with_its_container_is_no_error(shoal: Shell, manager: Manager) -> None:
    add(manager, "gone", 1, "n1", "FAILED")
    add(manager, "pending", 4, "n1", "PENDING")
    assert shoal("service", "logs", "web").code == 0


def test_terminals_are_only_shown_raw(shoal: Shell, web: types_pb2.Service) -> None:
    web.spec.task.container.tty = True
    ran = shoal("service", "logs", "web")
    assert (ran.code, ran.err) == (1, "Error: tty service logs only supported with --raw\n")
    assert shoal("service", "logs", "--raw", "web").code == 0


@pytest.mark.usefixtures("web")
def test_followed_service_lets_new_tasks_speak_until_it_is_removed(shoal: Shell, manager: Manager) -> None:
    tasks = [view.task for view in manager.tasks.values()]
    new = add(manager, "task4", 4, "n1")
    del manager.tasks["task4"]  # it comes only after the tasks were listed
    manager.logs["ctask4"] = [LogLine(at_ns=50, data=b"five\n")]
    manager.watched = [WatchServiceResponse(service=ServiceView(), tasks=[*tasks, new])]
    manager.listed = lambda: manager.tasks.update(task4=TaskView(task=new, service_name="web", node_name="n1"))
    manager.ended.set()
    ran = shoal("service", "logs", "-f", "--tail", "1", "web")
    assert sorted(ran.out.splitlines()) == [
        "web.1.task1@n1    | one",
        "web.1.task1@n1    | three",
        "web.2.task2@n2    | two",
        "web.4.task4@n1    | five",
    ]
    tails = {each.container: each.HasField("tail") for each in manager.of(ReadLogsRequest)}
    assert tails == {"ctask1": True, "ctask2": True, "ctask3": True, "ctask4": False}
    assert ran.code == 0


@pytest.mark.usefixtures("web")
def test_followed_service_waits_until_a_task_runs(shoal: Shell, manager: Manager) -> None:
    waiting = add(manager, "task4", 4, "n1", "READY")
    running = Task.FromString(waiting.SerializeToString())
    running.status.state = types_pb2.TASK_STATE_RUNNING
    manager.logs = {"ctask4": [LogLine(at_ns=50, data=b"five\n")]}
    manager.watched = [
        WatchServiceResponse(service=ServiceView(), tasks=[each]) for each in (waiting, waiting, running)
    ]
    manager.ended.set()
    shoal("service", "logs", "-f", "web")
    asked = [each.container for each in manager.of(ReadLogsRequest)]
    assert asked.count("ctask4") == 1
    kinds = [type(each).__name__ for each in manager.asked]
    assert kinds.index("WatchServiceRequest") < len(kinds) - 1 - kinds[::-1].index("ReadLogsRequest")


@pytest.mark.usefixtures("web")
def test_followed_task_ends_with_it(shoal: Shell) -> None:
    assert shoal("service", "logs", "-f", "web.1").out.splitlines() == [
        "web.1.task1@n1    | one",
        "web.1.task1@n1    | three",
    ]
