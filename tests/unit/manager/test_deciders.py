"""What deciders share is there before any of them decides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from manager.deciders import DECIDERS, FINISH, prepare
from manager.store.mirror import MirrorEvent
from manager.store.records import KINDS
from manager.store.view import View
from shoal import defaults
from shoal.ids import new_id
from shoal.model.base import Meta
from shoal.model.cluster import Cluster
from shoal.model.node import Node, NodeSpec, NodeState, NodeStatus
from shoal.model.service import Port, Service, ServiceSpec
from shoal.model.task import Task, TaskState, TaskStatus


class Finished(View):
    """Makes no follower that it was not asked for when it was `prepared`."""

    prepared = False
    made: set[Any]

    def follower(self, make: Callable[[View], Any]) -> Any:
        assert not self.prepared or make in self.made, f"{make} is made only now"
        self.made = getattr(self, "made", set()) | {make}
        return super().follower(make)


def test_who_begins_to_lead_has_nothing_to_make_first() -> None:
    view = Finished([Cluster(Meta("c1"), defaults.CLUSTER)])
    prepare(view)
    view.prepared = True
    view.put(Node(Meta("n1"), NodeSpec(), status=NodeStatus(NodeState.READY)))
    view.put(Service(Meta("s1"), ServiceSpec("web", replicas=2, ports=(Port(8080, 80),)), task_version=1))
    view.put(Task(Meta("t1"), "s1", 1, 1, status=TaskStatus(TaskState.PENDING)))
    for decider in DECIDERS:
        for kind in KINDS:
            for id, value in view.all(kind).items():
                for key in decider.keys_for(MirrorEvent(kind, id, None, value, 1), view):
                    FINISH(view, decider.reconcile(view, key, 10**18, new_id).actions, 10**18)
