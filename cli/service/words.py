"""Services and tasks in docker's words and rows. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cli.container.listing import PROTOCOLS
from cli.output import words
from cli.output.table import Row, label_method, labels_text
from shoal.ids import short
from shoal.v1 import control_pb2
from shoal.v1.types_pb2 import (
    PUBLISH_MODE_INGRESS,
    SERVICE_MODE_GLOBAL,
    TASK_STATE_PENDING,
    TASK_STATE_RUNNING,
    Port,
    Service,
    TaskState,
)

_ERROR_WIDTH = 90


def name_of_state(state: TaskState.ValueType) -> str:
    """ "running"."""
    return TaskState.Name(state).removeprefix("TASK_STATE_").lower()


def mode(service: Service) -> str:
    return "global" if service.spec.mode == SERVICE_MODE_GLOBAL else "replicated"


def service_row(view: control_pb2.ServiceView, *, whole: bool) -> Row:
    """A service as docker's fields."""
    service = view.service
    most = service.spec.task.placement.max_per_node
    return {
        "ID": service.meta.id if whole else short(service.meta.id),
        "Name": service.spec.name,
        "Mode": mode(service),
        "Replicas": f"{view.running}/{view.desired}" + (f" (max {most} per node)" if most else ""),
        "Image": service.spec.task.container.image,
        "Ports": ", ".join(port_text(each) for each in service.ports if each.mode == PUBLISH_MODE_INGRESS),
        "Labels": labels_text(service.spec.labels),
        "Label": label_method(service.spec.labels),
    }


def port_text(port: Port) -> str:
    """ "*:8080->80/tcp"."""
    return f"{port.host_address or '*'}:{port.published}->{port.target}/{PROTOCOLS[port.protocol]}"


def task_name(view: control_pb2.TaskView) -> str:
    """ "web.1"; a global service's task by its node."""
    task = view.task
    return f"{view.service_name or task.service_id}.{task.slot or task.node_id}"


def task_rows(views: Sequence[control_pb2.TaskView], *, whole: bool, resolve: bool, now_ns: int) -> list[Row]:
    """Tasks as docker's fields, as they come: of each place the newest first, the older ones below it."""
    rows: list[Row] = []
    before = ""
    for view in in_order(views):
        name = task_name(view)
        task = view.task
        shown = name if resolve else f"{task.service_id}.{task.slot or task.node_id}"
        rows.append(
            {
                "ID": task.meta.id if whole else short(task.meta.id),
                "Name": f" \\_ {shown}" if name == before else shown,
                "Image": view.image,
                "Node": (view.node_name if resolve else task.node_id) or "",
                "DesiredState": name_of_state(task.desired).capitalize(),
                "CurrentState": f"{name_of_state(task.status.state).capitalize()} "
                + words.ago(task.status.at_ns or task.meta.created_at_ns, now_ns).lower(),
                "Error": _error(view, whole=whole),
                "Ports": ",".join(port_text(each) for each in task.status.ports),
            }
        )
        before = name
    return rows


def in_order(views: Iterable[control_pb2.TaskView]) -> list[control_pb2.TaskView]:
    """By service and place; within it what shall run first, then the newest."""
    return sorted(
        views,
        key=lambda view: (
            view.service_name,
            view.task.slot,
            view.task.node_id if not view.task.slot else "",
            view.task.desired > TASK_STATE_RUNNING,
            -view.task.meta.created_at_ns,
        ),
    )


def _error(view: control_pb2.TaskView, *, whole: bool) -> str:
    """What went wrong, or why the task has no node yet."""
    status = view.task.status
    text = status.error or (status.message if status.state <= TASK_STATE_PENDING and not view.task.node_id else "")
    if not text:
        return ""
    return words.quoted(text if whole else words.short(text, _ERROR_WIDTH))
