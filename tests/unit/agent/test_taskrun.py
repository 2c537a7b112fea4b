"""One task's runner: up the ladder, down again, and back after a crash at any point."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import msgspec
import pytest

from agent import task as ladder
from agent.taskrun import DRAIN_S, TaskRun
from shoal.clock import ManualClock, SystemClock
from shoal.errors import CommandNotFound, NotFound, ShoalError
from shoal.model.assignment import Template
from shoal.model.container import ContainerSpec, ContainerState
from shoal.model.health import HealthCheck, HealthState
from shoal.model.service import TaskSpec
from shoal.model.task import TaskState, TaskStatus
from tests.unit.agent.conftest import eventually
from tests.unit.agent.host import TEMPLATE, Bench, bench, task

NAME = "web.1.t1"
TASK = task(1)
SHUTDOWN = msgspec.structs.replace(TASK, desired=TaskState.SHUTDOWN)
Start = Callable[..., TaskRun]


@pytest.fixture
def parts() -> Bench:
    return bench(SystemClock())


@pytest.fixture
def told() -> list[TaskStatus]:
    return []


@pytest.fixture
async def start(parts: Bench, told: list[TaskStatus]) -> AsyncIterator[Start]:
    """Runs tasks on the bench; what is left at the end is cancelled."""
    running = []

    def begin(
        wanted=TASK, *, status: TaskStatus | None = None, rebooted: bool = False, template: Template = TEMPLATE
    ) -> TaskRun:
        run = TaskRun(
            parts.host,
            template,
            wanted,
            status=status or ladder.accepted(1),
            rebooted=rebooted,
            tell=lambda _, status: told.append(status),
        )
        running.append(asyncio.create_task(run.run()))
        return run

    yield begin
    for each in running:
        if each.done():
            each.result()
        each.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await each


def states(told: list[TaskStatus]) -> list[TaskState]:
    return [status.state for status in told]


async def test_waits_for_its_end_where_nothing_is_known_of_its_service(start: Start, told: list[TaskStatus]) -> None:
    run = start(template=Template(TEMPLATE.service_id, TEMPLATE.task_version))
    await eventually(lambda: states(told) == [TaskState.PREPARING])
    run.want(SHUTDOWN)
    await eventually(lambda: states(told)[-1] is TaskState.SHUTDOWN)
    assert TaskState.REJECTED not in states(told)


async def test_climbs_every_rung_and_tells_each(start: Start, parts: Bench, told: list[TaskStatus]) -> None:
    run = start()
    await eventually(lambda: run.status.state is TaskState.RUNNING)
    assert states(told) == [TaskState.PREPARING, TaskState.READY, TaskState.STARTING, TaskState.RUNNING]
    assert parts.done == [f"create {NAME}", f"start {NAME}"]
    assert run.status.pid == 100
    assert run.status.container_id == f"id-{NAME}"


async def test_waits_at_ready_until_it_is_released(start: Start, parts: Bench) -> None:
    run = start(msgspec.structs.replace(TASK, desired=TaskState.READY))
    await eventually(lambda: run.status.state is TaskState.READY)
    await asyncio.sleep(0.02)
    assert parts.done == [f"create {NAME}"]
    run.want(TASK)
    await eventually(lambda: run.status.state is TaskState.RUNNING)


async def test_leaves_the_balance_and_drains_before_it_stops(told: list[TaskStatus]) -> None:
    clock = ManualClock()
    parts = bench(clock)
    run = TaskRun(
        parts.host, TEMPLATE, TASK, status=ladder.accepted(1), rebooted=False, tell=lambda _, s: told.append(s)
    )
    running = asyncio.create_task(run.run())
    await eventually(lambda: run.status.state is TaskState.RUNNING)
    run.want(SHUTDOWN)
    await clock.advance(DRAIN_S / 2)
    assert parts.done[2:] == ["leave t1", "withdrawn t1"]
    await clock.advance(DRAIN_S)
    assert parts.done[4] == f"stop {NAME}"
    await eventually(lambda: run.status.state is TaskState.SHUTDOWN)
    running.cancel()


async def test_a_task_that_nobody_balances_does_not_drain(start: Start, parts: Bench) -> None:
    parts.balance.balanced = False
    run = start()
    await eventually(lambda: run.status.state is TaskState.RUNNING)
    run.want(SHUTDOWN)
    await eventually(lambda: run.status.state is TaskState.SHUTDOWN, seconds=DRAIN_S / 2)


async def test_keeps_the_container_until_the_task_is_no_longer_assigned(start: Start, parts: Bench) -> None:
    parts.balance.balanced = False
    run = start()
    await eventually(lambda: run.status.state is TaskState.RUNNING)
    run.want(SHUTDOWN)
    await eventually(lambda: run.status.state is TaskState.SHUTDOWN)
    assert NAME in parts.containers.there
    run.want(None)
    await eventually(lambda: "forget t1" in parts.done)
    assert parts.containers.there == {}


async def test_unassigned_while_running_stops_and_removes(start: Start, parts: Bench) -> None:
    parts.balance.balanced = False
    run = start()
    await eventually(lambda: run.status.state is TaskState.RUNNING)
    run.want(None)
    await eventually(lambda: "forget t1" in parts.done)
    assert parts.done[2:] == ["leave t1", f"stop {NAME}", f"remove {NAME}", "forget t1"]


@pytest.mark.parametrize(("code", "state"), [(0, TaskState.COMPLETE), (3, TaskState.FAILED)])
async def test_an_exit_ends_the_task_and_its_share_of_the_balance(
    start: Start, parts: Bench, code: int, state: TaskState
) -> None:
    run = start()
    await eventually(lambda: run.status.state is TaskState.RUNNING)
    parts.containers.exit(NAME, code)
    await eventually(lambda: run.status.state is state)
    assert run.status.exit_code == code
    await eventually(lambda: "leave t1" in parts.done)


async def test_no_image_is_a_rejection_with_the_reason(start: Start, parts: Bench) -> None:
    parts.images.refusal = NotFound("No such image: web:1")
    run = start()
    await eventually(lambda: run.status.state is TaskState.REJECTED)
    assert run.status.error == "No such image: web:1"


async def test_a_failed_start_is_a_failure_and_is_not_repeated(start: Start, parts: Bench) -> None:
    parts.containers.refuse["start"] = [CommandNotFound("exec: nope: not found")]
    run = start()
    await eventually(lambda: run.status.state is TaskState.FAILED)
    await asyncio.sleep(0.02)
    assert parts.done == [f"create {NAME}", "leave t1"]


async def test_a_pull_is_broken_off_when_the_task_is_to_end(start: Start, parts: Bench) -> None:
    parts.images.gate.clear()
    run = start()
    await eventually(lambda: run.status.state is TaskState.PREPARING)
    run.want(SHUTDOWN)
    await eventually(lambda: run.status.state is TaskState.SHUTDOWN)
    assert parts.containers.there == {}


async def test_a_pull_goes_on_when_the_task_is_released(start: Start, parts: Bench) -> None:
    parts.images.gate.clear()
    run = start(msgspec.structs.replace(TASK, desired=TaskState.READY))
    await eventually(lambda: run.status.state is TaskState.PREPARING)
    run.want(TASK)
    parts.images.gate.set()
    await eventually(lambda: run.status.state is TaskState.RUNNING)


async def test_a_stop_that_fails_is_tried_again(start: Start, parts: Bench, caplog: pytest.LogCaptureFixture) -> None:
    parts.balance.balanced = False
    parts.containers.refuse["stop"] = [ShoalError("the keeper does not answer")]
    run = start()
    await eventually(lambda: run.status.state is TaskState.RUNNING)
    run.want(SHUTDOWN)
    await eventually(lambda: run.status.state is TaskState.SHUTDOWN)
    assert "stop failed: the keeper does not answer" in caplog.text


async def test_adopts_a_running_container_without_touching_it(start: Start, parts: Bench) -> None:
    parts.containers.put(NAME, "t1", ContainerState.RUNNING)
    run = start(status=TaskStatus(state=TaskState.RUNNING))
    await eventually(lambda: run.status.pid == 7)
    assert parts.done == []


async def test_adopts_a_running_container_whose_status_was_lost(start: Start, parts: Bench) -> None:
    parts.containers.put(NAME, "t1", ContainerState.RUNNING)
    run = start()
    await eventually(lambda: run.status.state is TaskState.RUNNING)
    assert parts.done == []


async def test_goes_on_with_a_container_that_was_only_created(start: Start, parts: Bench) -> None:
    parts.containers.put(NAME, "t1", ContainerState.CREATED)
    run = start(status=TaskStatus(state=TaskState.PREPARING))
    await eventually(lambda: run.status.state is TaskState.RUNNING)
    assert parts.done == [f"start {NAME}"]


async def test_starts_again_after_a_reboot_and_says_so(start: Start, parts: Bench, told: list[TaskStatus]) -> None:
    parts.containers.put(NAME, "t1", ContainerState.EXITED)
    run = start(status=TaskStatus(state=TaskState.RUNNING, pid=100), rebooted=True)
    await eventually(lambda: parts.done == [f"start {NAME}"])
    await eventually(lambda: told)
    assert set(states(told)) == {TaskState.RUNNING}
    # Once it runs, an end is an end.
    parts.containers.exit(NAME, 1)
    await eventually(lambda: run.status.state is TaskState.FAILED)


async def test_makes_a_container_anew_that_the_reboot_lost(start: Start, parts: Bench) -> None:
    start(status=TaskStatus(state=TaskState.RUNNING, pid=100), rebooted=True)
    await eventually(lambda: parts.done == [f"create {NAME}", f"start {NAME}"])


async def test_a_stranger_with_the_tasks_name_is_left_alone(start: Start, parts: Bench) -> None:
    parts.containers.put(NAME, "", ContainerState.RUNNING)
    run = start()
    await eventually(lambda: run.status.state is TaskState.REJECTED)
    run.want(None)
    await eventually(lambda: "forget t1" in parts.done)
    assert NAME in parts.containers.there


async def test_cancelling_the_runner_leaves_the_container_running(start: Start, parts: Bench) -> None:
    run = TaskRun(parts.host, TEMPLATE, TASK, status=ladder.accepted(1), rebooted=False, tell=lambda *_: None)
    running = asyncio.create_task(run.run())
    await eventually(lambda: run.status.state is TaskState.RUNNING)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert parts.done == [f"create {NAME}", f"start {NAME}"]


CHECKED = msgspec.structs.replace(
    TEMPLATE,
    spec=TaskSpec(container=ContainerSpec(image="web:1", health=HealthCheck(test=("CMD", "true")))),
)


async def test_a_task_runs_only_once_it_is_healthy(parts: Bench, told: list[TaskStatus]) -> None:
    run = TaskRun(
        parts.host, CHECKED, TASK, status=ladder.accepted(1), rebooted=False, tell=lambda _, s: told.append(s)
    )
    running = asyncio.create_task(run.run())
    await eventually(lambda: run.status.pid == 100)
    assert run.status.state is TaskState.STARTING
    parts.containers.judge(NAME, HealthState.HEALTHY)
    await eventually(lambda: run.status.state is TaskState.RUNNING)
    assert TaskState.RUNNING not in states(told)[:-1]
    running.cancel()


@pytest.mark.parametrize("before", [HealthState.STARTING, HealthState.HEALTHY])
async def test_a_task_that_is_unhealthy_fails_and_is_stopped(
    parts: Bench, told: list[TaskStatus], before: HealthState
) -> None:
    parts.balance.balanced = False
    run = TaskRun(
        parts.host, CHECKED, TASK, status=ladder.accepted(1), rebooted=False, tell=lambda _, s: told.append(s)
    )
    running = asyncio.create_task(run.run())
    await eventually(lambda: run.status.pid == 100)
    parts.containers.judge(NAME, before)
    parts.containers.judge(NAME, HealthState.UNHEALTHY)
    await eventually(lambda: run.status.state is TaskState.FAILED)
    assert run.status.error == "task: unhealthy container"
    await eventually(lambda: f"stop {NAME}" in parts.done)
    assert parts.done[2:4] == ["leave t1", f"stop {NAME}"]
    running.cancel()
