"""The load that follows the view, where random histories once found it wrong."""

from __future__ import annotations

import msgspec

from manager.scheduler.draft import Draft
from manager.scheduler.load import Load
from manager.store.view import View
from shoal.model.base import Meta
from shoal.model.network import Network, NetworkAttachment, NetworkScope, NetworkSpec
from shoal.model.node import Node
from shoal.model.service import Service, ServiceSpec, TaskSpec
from shoal.model.task import Task, TaskState, TaskStatus


def test_a_network_made_again_is_held_by_tasks_of_the_version_before_too() -> None:
    on_x = ServiceSpec("web", task=TaskSpec(networks=(NetworkAttachment("x"),)))
    service = Service(Meta("s"), msgspec.structs.replace(on_x, task=TaskSpec()), outgoing=on_x, task_version=2)
    running = TaskStatus(state=TaskState.RUNNING)
    view = View([Node(Meta("n")), service, Task(Meta("t"), "s", 1, 1, "n", status=running)])
    following = view.follower(Load)
    view.put(Network(Meta("x"), NetworkSpec("x"), NetworkScope.SWARM, "10.9.0.0/25", block_prefix=29))
    assert _left_on_x(following) == _left_on_x(Load(view)) == [4]


def _left_on_x(load: Load) -> list[int]:
    return Draft(load).overlay("x").left(load.order()).tolist()
