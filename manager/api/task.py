"""Calls on tasks. They are made and ended by their service alone, so these only look."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc.aio

from manager.api.find import begins, is_any, node_of, passes, service_of, task_name, task_of
from manager.api.room import Room, pairs
from shoal.codec import to_wire
from shoal.model.service import Service, TaskSpec
from shoal.model.task import Task, TaskState
from shoal.v1 import control_pb2 as wire
from shoal.v1 import types_pb2

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]


class TaskCalls:
    _room: Room

    async def ListTasks(self, request: wire.ListTasksRequest, _context: Context) -> wire.ListTasksResponse:
        view = self._room.mirror
        # A reference that stands for nothing is an error, not an empty list.
        resolved = [(key, self._resolved(key, value)) for key, value in pairs(request.filters)]
        passes(resolved, self._tests(Task()))
        services = [value for key, value in resolved if key == "service"]
        nodes = [value for key, value in resolved if key == "node"]
        if services:
            among = [task for id in dict.fromkeys(services) for task in view.tasks_of_service(id)]
        elif nodes:
            among = [task for id in dict.fromkeys(nodes) for task in view.tasks_of_node(id)]
        else:
            among = list(view.tasks.values())
        found = [task for task in among if passes(resolved, self._tests(task))]
        found.sort(key=lambda task: (task.service_id, task.slot, -task.meta.created_at_ns, task.meta.id))
        return wire.ListTasksResponse(tasks=[self._task_view(task) for task in found])

    async def GetTask(self, request: wire.GetTaskRequest, _context: Context) -> wire.GetTaskResponse:
        task = task_of(self._room.mirror, request.task)
        spec = _spec_of(task, self._room.mirror.services.get(task.service_id))
        return wire.GetTaskResponse(task=self._task_view(task), spec=to_wire(spec, types_pb2.TaskSpec))

    def _task_view(self, task: Task) -> wire.TaskView:
        view = self._room.mirror
        service = view.services.get(task.service_id)
        node = view.nodes.get(task.node_id)
        return wire.TaskView(
            task=to_wire(task, types_pb2.Task),
            service_name=service.spec.name if service is not None else "",
            node_name=node.description.hostname if node is not None else "",
            image=_spec_of(task, service).container.image,
        )

    def _resolved(self, key: str, value: str) -> str:
        if key == "service":
            return service_of(self._room.mirror, value).meta.id
        if key == "node":
            return node_of(self._room.mirror, value, own_id=self._room.own_id).meta.id
        return value

    def _tests(self, task: Task) -> dict[str, Any]:
        name = task_name(task, self._room.mirror.services.get(task.service_id))
        return {
            "id": begins(task.meta.id),
            "name": begins(f"{name}.{task.meta.id}"),
            "service": is_any(task.service_id),
            "node": is_any(task.node_id),
            "desired-state": is_any(desired_word(task)),
        }


def desired_word(task: Task) -> str:
    """What is wanted of a task, in the three words that users filter by."""
    if task.desired >= TaskState.COMPLETE:
        return "shutdown"
    return "running" if task.desired >= TaskState.RUNNING else "accepted"


def _spec_of(task: Task, service: Service | None) -> TaskSpec:
    """The spec that the task was made from; an empty one where it is kept no more."""
    if service is not None and task.task_version == service.task_version:
        return service.spec.task
    if service is not None and service.outgoing is not None and task.task_version == service.task_version - 1:
        return service.outgoing.task
    return TaskSpec()
