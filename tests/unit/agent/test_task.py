"""The ladder: which step comes next, and that states only rise."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import task as ladder
from agent.task import Step, decide
from shoal.model.assignment import AssignedTask, Template
from shoal.model.base import Meta
from shoal.model.container import Container, ContainerSpec, ContainerState, ContainerStatus
from shoal.model.network import Address, Port
from shoal.model.node import NodeDescription
from shoal.model.service import TaskSpec
from shoal.model.task import TaskState, TaskStatus

NOW = 1_000
HOST = NodeDescription(hostname="n1", os="linux", architecture="x86_64")
TASK = AssignedTask(task_id="t1", service_id="s1", task_version=1, slot=1)
READY = msgspec.structs.replace(TASK, desired=TaskState.READY)
SHUTDOWN = msgspec.structs.replace(TASK, desired=TaskState.SHUTDOWN)
REMOVE = msgspec.structs.replace(TASK, desired=TaskState.REMOVE)


def status(state: TaskState, **facts: object) -> TaskStatus:
    return TaskStatus(state=state, **facts)  # type: ignore[arg-type]


def container(state: ContainerState, **facts: object) -> Container:
    if state is not ContainerState.CREATED:
        facts = {"started_at_ns": 5, **facts}
    return Container(meta=Meta(id="c1"), task_id="t1", status=ContainerStatus(state=state, **facts))  # type: ignore[arg-type]


CREATED = container(ContainerState.CREATED)
RUNNING = container(ContainerState.RUNNING, pid=7, addresses=(Address("n", "net", "10.0.0.2", 24),))
EXITED = container(ContainerState.EXITED, exit_code=0)
FAILED = container(ContainerState.EXITED, exit_code=3)


@pytest.mark.parametrize(
    ("wanted", "before", "seen", "step", "after"),
    [
        (TASK, TaskState.ACCEPTED, None, Step.PREPARE, TaskState.PREPARING),
        (TASK, TaskState.PREPARING, CREATED, Step.PREPARE, TaskState.PREPARING),
        (READY, TaskState.READY, CREATED, Step.HOLD, TaskState.READY),
        (TASK, TaskState.READY, CREATED, Step.START, TaskState.STARTING),
        (TASK, TaskState.READY, None, Step.HOLD, TaskState.REJECTED),
        (TASK, TaskState.STARTING, CREATED, Step.START, TaskState.STARTING),
        (TASK, TaskState.STARTING, RUNNING, Step.WATCH, TaskState.RUNNING),
        (TASK, TaskState.ACCEPTED, RUNNING, Step.WATCH, TaskState.RUNNING),
        (TASK, TaskState.RUNNING, EXITED, Step.HOLD, TaskState.COMPLETE),
        (TASK, TaskState.RUNNING, FAILED, Step.HOLD, TaskState.FAILED),
        (TASK, TaskState.RUNNING, None, Step.HOLD, TaskState.FAILED),
        (SHUTDOWN, TaskState.RUNNING, RUNNING, Step.STOP, TaskState.RUNNING),
        (SHUTDOWN, TaskState.RUNNING, FAILED, Step.HOLD, TaskState.SHUTDOWN),
        (SHUTDOWN, TaskState.ACCEPTED, None, Step.HOLD, TaskState.SHUTDOWN),
        (REMOVE, TaskState.READY, CREATED, Step.HOLD, TaskState.SHUTDOWN),
        (SHUTDOWN, TaskState.FAILED, FAILED, Step.HOLD, TaskState.FAILED),
        (TASK, TaskState.FAILED, RUNNING, Step.STOP, TaskState.FAILED),
        (None, TaskState.RUNNING, RUNNING, Step.STOP, TaskState.RUNNING),
        (None, TaskState.SHUTDOWN, EXITED, Step.REMOVE, TaskState.SHUTDOWN),
    ],
)
def test_next_step(
    wanted: AssignedTask | None, before: TaskState, seen: Container | None, step: Step, after: TaskState
) -> None:
    decision = decide(wanted, status(before), seen, now_ns=NOW)
    assert (decision.step, decision.status.state) == (step, after)


def test_exit_code_and_memory_are_told() -> None:
    killed = container(ContainerState.EXITED, exit_code=137, oom_killed=True)
    told = decide(TASK, status(TaskState.RUNNING), killed, now_ns=NOW).status
    assert (told.exit_code, told.error) == (137, "task: non-zero exit (137): out of memory")


def test_a_reboot_starts_again_what_ran_without_leaving_running() -> None:
    decision = decide(TASK, status(TaskState.RUNNING), FAILED, now_ns=NOW, rebooted=True)
    assert (decision.step, decision.status.state) == (Step.START, TaskState.RUNNING)
    lost = decide(TASK, status(TaskState.RUNNING), None, now_ns=NOW, rebooted=True)
    assert (lost.step, lost.status.state) == (Step.PREPARE, TaskState.RUNNING)


def test_a_reboot_revives_nothing_that_is_to_end() -> None:
    assert decide(SHUTDOWN, status(TaskState.RUNNING), FAILED, now_ns=NOW, rebooted=True).step is Step.HOLD
    assert decide(TASK, status(TaskState.COMPLETE), EXITED, now_ns=NOW, rebooted=True).step is Step.HOLD


def test_new_addresses_of_a_running_task_are_told() -> None:
    known = decide(TASK, status(TaskState.STARTING), RUNNING, now_ns=NOW).status
    assert decide(TASK, known, RUNNING, now_ns=NOW + 1).status is known
    moved = msgspec.structs.replace(RUNNING, status=msgspec.structs.replace(RUNNING.status, addresses=(), pid=8))
    assert decide(TASK, known, moved, now_ns=NOW + 1).status.pid == 8


@pytest.mark.parametrize(
    ("before", "after"),
    [(TaskState.PREPARING, TaskState.REJECTED), (TaskState.STARTING, TaskState.FAILED)],
)
def test_failure_before_starting_is_a_rejection(before: TaskState, after: TaskState) -> None:
    told = ladder.failed(status(before), "No such image: x", NOW)
    assert (told.state, told.error) == (after, "No such image: x")


def test_container_of_a_replicated_and_of_a_global_task() -> None:
    template = Template(
        "s1", 1, "web", {}, TaskSpec(container=ContainerSpec(image="web:1", labels={"a": "b"})), "", (Port(),)
    )
    made = ladder.container_of(template, TASK, node_id="node1", host=HOST, image="web@sha256:1")
    assert (made.name, made.task_id, made.spec.image, made.ports) == ("web.1.t1", "t1", "web@sha256:1", (Port(),))
    assert made.spec.labels["com.docker.swarm.service.name"] == "web"
    assert made.spec.labels["a"] == "b"
    everywhere = ladder.container_of(
        template, msgspec.structs.replace(TASK, slot=0), node_id="node1", host=HOST, image=""
    )
    assert everywhere.name == "web.node1.t1"


states = st.sampled_from([state for state in TaskState if state not in (TaskState.REMOVE, TaskState.ORPHANED)])
wishes = st.sampled_from([None, READY, TASK, SHUTDOWN, REMOVE])
containers = st.sampled_from([None, CREATED, RUNNING, EXITED, FAILED])


@given(wishes, states, containers, st.booleans())
def test_states_never_fall(
    wanted: AssignedTask | None, before: TaskState, seen: Container | None, rebooted: bool
) -> None:
    assert decide(wanted, status(before), seen, now_ns=NOW, rebooted=rebooted).status.state >= before


@given(wishes, states, containers)
def test_deciding_again_decides_the_same(
    wanted: AssignedTask | None, before: TaskState, seen: Container | None
) -> None:
    first = decide(wanted, status(before), seen, now_ns=NOW)
    second = decide(wanted, first.status, seen, now_ns=NOW + 1)
    assert second.status.state == first.status.state
    assert second.step == first.step or first.status.state > TaskState.RUNNING


@given(states, containers, st.booleans())
def test_nothing_that_is_to_end_is_started(before: TaskState, seen: Container | None, rebooted: bool) -> None:
    for wanted in (None, SHUTDOWN, REMOVE):
        decision = decide(wanted, status(before), seen, now_ns=NOW, rebooted=rebooted)
        assert decision.step not in (Step.PREPARE, Step.START, Step.WATCH)
