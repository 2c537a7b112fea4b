"""A task as `docker inspect --type task` shows it."""

from __future__ import annotations

from typing import Any

from cli.document.common import enum_word, record, service_port
from cli.document.service import task_spec
from cli.output.words import rfc3339
from shoal.v1.control_pb2 import GetTaskResponse, TaskView
from shoal.v1.types_pb2 import TaskState


def name_of(view: TaskView) -> str:
    """As its container is called."""
    return f"{view.service_name}.{view.task.slot or view.task.node_id}.{view.task.meta.id}"


def document(answer: GetTaskResponse) -> dict[str, Any]:
    task, status = answer.task.task, answer.task.task.status
    return {
        **record(task.meta),
        "Name": name_of(answer.task),
        "Spec": task_spec(answer.spec),
        "ServiceID": task.service_id,
        "Slot": task.slot,
        "NodeID": task.node_id,
        "Status": {
            "Timestamp": rfc3339(status.at_ns),
            "State": enum_word(TaskState.Name(status.state), "TASK_STATE_"),
            "Message": status.message,
            "Err": status.error,
            "ContainerStatus": {
                "ContainerID": status.container_id,
                "PID": status.pid,
                "ExitCode": status.exit_code,
            },
            "PortStatus": {"Ports": [service_port(each) for each in status.ports]},
        },
        "DesiredState": enum_word(TaskState.Name(task.desired), "TASK_STATE_"),
        "NetworksAttachments": [
            {
                "Network": {"ID": each.network_id, "Name": each.network_name},
                "Addresses": [f"{each.address}/{each.prefix}"],
            }
            for each in status.addresses
        ],
    }
