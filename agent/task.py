"""The ladder of one task: from what is wanted and what is seen, the next step and the status to tell. Pure.

`agent/taskrun.py` carries the steps out. The state only rises (`shoal/model/task.py`): before STARTING a failure
is REJECTED, from STARTING on it is FAILED. One thing looks back: a host that rebooted starts again what it was
running, without leaving RUNNING, since no manager may be there to order a replacement.
"""

from __future__ import annotations

import enum

import msgspec

from shoal.model.assignment import AssignedTask, Template
from shoal.model.container import Container, ContainerState, RestartPolicy
from shoal.model.health import HealthState
from shoal.model.node import NodeDescription
from shoal.model.task import TaskState, TaskStatus
from shoal.placeholder import Facts, filled

_ALIVE = frozenset({ContainerState.RUNNING, ContainerState.PAUSED, ContainerState.RESTARTING})


class Step(enum.Enum):
    """What to do next. Only PREPARE and WATCH may be broken off when the task is to end."""

    PREPARE = "prepare"  # image, volumes and container; then it is READY
    START = "start"
    WATCH = "watch"  # until the container exits or something else is wanted
    STOP = "stop"  # out of the balance, a moment for open connections, signal, kill
    HOLD = "hold"  # nothing, until something else is wanted
    REMOVE = "remove"  # container and records; the runner ends


class Decision(msgspec.Struct, frozen=True):
    step: Step
    status: TaskStatus


def decide(
    wanted: AssignedTask | None,
    status: TaskStatus,
    container: Container | None,
    *,
    now_ns: int,
    rebooted: bool = False,
) -> Decision:
    """The next step of a task. `wanted` None: it is no longer assigned. `container` is the task's, as it is now.
    `rebooted`: the host has started anew since `status` was written, so that a container that does not run was
    ended by that, not by itself."""
    alive = container is not None and container.status.state in _ALIVE
    if wanted is None:
        return Decision(Step.STOP if alive else Step.REMOVE, status)
    if _finished(status):
        return Decision(Step.STOP if alive else Step.HOLD, status)
    ending = wanted.desired > TaskState.RUNNING
    if container is not None and alive:
        if container.status.health.state is HealthState.UNHEALTHY and not ending:
            return Decision(Step.STOP, failed(status, "task: unhealthy container", now_ns))
        seen = _running(status, container, now_ns)
        return Decision(Step.STOP if ending else Step.WATCH, seen)
    if ending:
        return Decision(Step.HOLD, _shut_down(status, container, now_ns))
    if rebooted and status.state >= TaskState.STARTING:
        return Decision(Step.PREPARE if container is None else Step.START, status)
    return _climb(wanted, status, container, now_ns)


def accepted(now_ns: int) -> TaskStatus:
    """The status of a task that this node has just heard of and written down."""
    return TaskStatus(state=TaskState.ACCEPTED, message="accepted", at_ns=now_ns)


def failed(status: TaskStatus, error: str, now_ns: int) -> TaskStatus:
    """The status after a step went wrong."""
    started = status.state >= TaskState.STARTING
    return rise(
        status, TaskState.FAILED if started else TaskState.REJECTED, now_ns, message=_FAILED[started], error=error
    )


def ready(status: TaskStatus, container: Container, now_ns: int) -> TaskStatus:
    """The status once PREPARE is done."""
    return rise(status, TaskState.READY, now_ns, message="prepared", container_id=container.meta.id)


def rise(status: TaskStatus, state: TaskState, now_ns: int, *, message: str = "", **facts: object) -> TaskStatus:
    """`status` in `state`, unless it stands higher already; then `status` as it is."""
    if state < status.state:
        return status
    return msgspec.structs.replace(status, state=state, at_ns=now_ns, message=message, **facts)


def container_name(template: Template, task: AssignedTask, *, node_id: str) -> str:
    """Docker's: service, slot (the node for a global service, which has none) and task."""
    return f"{template.service_name}.{task.slot or node_id}.{task.task_id}"


def container_of(
    template: Template, task: AssignedTask, *, node_id: str, host: NodeDescription, image: str
) -> Container:
    """The container to create for a task, from `image` (a reference to exactly what the service was resolved to), on
    the node `node_id`, which is `host`. Raises InvalidArgument for a placeholder that is unknown."""
    spec = template.spec
    name = container_name(template, task, node_id=node_id)
    facts = Facts(
        {
            "Node.ID": node_id,
            "Node.Hostname": host.hostname,
            "Node.Platform.OS": host.os,
            "Node.Platform.Architecture": host.architecture,
            "Service.ID": template.service_id,
            "Service.Name": template.service_name,
            "Task.ID": task.task_id,
            "Task.Name": name,
            "Task.Slot": str(task.slot or node_id),
        },
        template.service_labels,
    )
    labels = {
        "com.docker.swarm.node.id": node_id,
        "com.docker.swarm.service.id": template.service_id,
        "com.docker.swarm.service.name": template.service_name,
        "com.docker.swarm.task.id": task.task_id,
        "com.docker.swarm.task.name": name,
        **spec.container.labels,
    }
    return Container(
        name=name,
        spec=msgspec.structs.replace(filled(spec.container, facts), image=image, labels=labels),
        limits=spec.limits,
        # A task runs once: what comes after it is the manager's decision.
        restart=RestartPolicy(),
        networks=spec.networks,
        ports=template.ports,
        task_id=task.task_id,
    )


def _climb(wanted: AssignedTask, status: TaskStatus, container: Container | None, now_ns: int) -> Decision:
    """The next step of a task that is to run and whose container does not run now."""
    if container is not None and container.status.started_at_ns:
        return Decision(Step.HOLD, _exited(status, container, now_ns))
    if status.state >= TaskState.READY and container is None:
        return Decision(Step.HOLD, failed(status, "the task's container is gone", now_ns))
    if status.state < TaskState.PREPARING:
        return Decision(Step.PREPARE, rise(status, TaskState.PREPARING, now_ns, message="preparing"))
    if status.state < TaskState.READY:
        return Decision(Step.PREPARE, status)
    if wanted.desired < TaskState.RUNNING:
        return Decision(Step.HOLD, status)
    return Decision(Step.START, rise(status, TaskState.STARTING, now_ns, message="starting"))


def _running(status: TaskStatus, container: Container, now_ns: int) -> TaskStatus:
    """RUNNING with what is seen of it; the same status when nothing about it is new. One that has not yet said that
    it is healthy is still STARTING, unless it was RUNNING before its host rebooted."""
    seen = container.status
    facts = {"container_id": container.meta.id, "pid": seen.pid, "addresses": seen.addresses, "ports": seen.ports}
    known = {name: getattr(status, name) for name in facts}
    if status.state is TaskState.RUNNING and known == facts:
        return status
    if seen.health.state is HealthState.STARTING and status.state < TaskState.RUNNING:
        if status.state is TaskState.STARTING and known == facts:
            return status
        return rise(status, TaskState.STARTING, now_ns, message="starting", **facts)
    return rise(status, TaskState.RUNNING, now_ns, message="started", **facts)


def _exited(status: TaskStatus, container: Container, now_ns: int) -> TaskStatus:
    """The end that a container came to by itself."""
    code = container.status.exit_code
    if code == 0:
        return rise(status, TaskState.COMPLETE, now_ns, message="finished", exit_code=0, pid=0)
    error = container.status.error or f"task: non-zero exit ({code})"
    if container.status.oom_killed:
        error += ": out of memory"
    return rise(status, TaskState.FAILED, now_ns, message="started", error=error, exit_code=code, pid=0)


def _shut_down(status: TaskStatus, container: Container | None, now_ns: int) -> TaskStatus:
    code = container.status.exit_code if container is not None else 0
    return rise(status, TaskState.SHUTDOWN, now_ns, message="shutdown", exit_code=code, pid=0)


def _finished(status: TaskStatus) -> bool:
    return status.state > TaskState.RUNNING


_FAILED = {False: "preparing", True: "starting"}
