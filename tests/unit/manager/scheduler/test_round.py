"""A round is bounded, whatever waits, and the rounds together come to an end."""

import msgspec
import pytest

from manager.control.action import Put
from manager.scheduler import plan
from manager.scheduler.load import Load
from manager.scheduler.queue import Queue
from manager.scheduler.round import AT_ONCE
from manager.store.view import View
from shoal.ids import new_id
from shoal.model.base import Meta, Resources
from shoal.model.node import Node, NodeDescription, NodeSpec, NodeState, NodeStatus
from shoal.model.service import Placement, Service, ServiceMode, ServiceSpec, TaskSpec
from shoal.model.task import Task, TaskState, TaskStatus

NOW_NS = 10**18
ANYTHING = TaskSpec()
ROOM = Resources(32 * 10**9, 128 << 30)


def cluster(nodes: int) -> View:
    about = NodeDescription(resources=ROOM)
    return View(Node(Meta(f"n{n:05}"), NodeSpec(), about, NodeStatus(NodeState.READY)) for n in range(nodes))


def wait(view: View, name: str, tasks: int, spec: TaskSpec = ANYTHING, **fields) -> None:
    view.put(Service(Meta(name), ServiceSpec(name, replicas=tasks, task=spec, **fields), task_version=1))
    nodes = sorted(view.nodes) if fields else [""] * tasks
    for slot in range(tasks):
        status = TaskStatus(state=TaskState.PENDING)
        view.put(Task(Meta(f"{name}.{slot:06}"), name, 1, slot, nodes[slot], status=status))


def rounds(view: View, *, most: int = 1000) -> list[int]:
    """How many actions each round has decided, until there is no more to decide."""
    sizes = []
    for _ in range(most):
        decision = plan.reconcile(view, "cluster", NOW_NS, new_id)
        sizes.append(len(decision.actions))
        for action in decision.actions:
            assert isinstance(action, Put)
            view.put(action.value)
        if decision.requeue_at_ns is None:
            return sizes
    raise AssertionError(f"no end after {most} rounds: {sizes[-10:]}")


def test_a_hundred_thousand_tasks_on_ten_thousand_nodes_are_placed_in_slices():
    view = cluster(10_000)
    wait(view, "web", 100_000)
    assert rounds(view) == [AT_ONCE] * (100_000 // AT_ONCE) + [0]
    assert set(view.follower(Load).of_service["web"].values()) == {10}


def test_services_that_fit_nowhere_do_not_make_a_round_longer_nor_are_they_looked_at_again():
    """Each of them asks for something else, so that each has to be looked at."""
    view = cluster(2_000)
    for number in range(1_000):
        wait(view, f"s{number}", 1, TaskSpec(reservations=Resources(memory_bytes=ROOM.memory_bytes + 1 + number)))
    wait(view, "web", 10)
    sizes = rounds(view)
    assert sum(sizes) == 1_010
    assert sizes.count(0) > 1, "they were all looked at in one round"
    assert not [task for task in view.tasks_unassigned() if task.service_id == "web"]
    assert all("too little memory" in task.status.message for task in view.tasks_unassigned())
    assert rounds(view) == [0]


@pytest.mark.parametrize("taken", [0, 3_000, 5_000])
def test_tasks_of_global_services_that_have_no_room_do_not_hold_up_the_others(taken):
    view = cluster(5_000)
    for node in list(view.nodes.values())[:taken]:
        view.put(msgspec.structs.replace(node, description=NodeDescription(resources=Resources(memory_bytes=1))))
    wait(view, "each", 5_000, TaskSpec(reservations=Resources(memory_bytes=2)), mode=ServiceMode.GLOBAL)
    sizes = rounds(view)
    assert max(sizes) <= AT_ONCE
    assert len(view.tasks_unassigned()) == taken
    assert all(task.status.message.startswith("no suitable node (insuff") for task in view.tasks_unassigned())


def test_what_was_stuck_is_placed_once_there_is_room():
    view = cluster(3)
    wait(view, "big", 1, TaskSpec(reservations=Resources(memory_bytes=ROOM.memory_bytes + 1)))
    wait(view, "nowhere", 1, TaskSpec(placement=Placement(("node.labels.no==where",))))
    rounds(view)
    about = NodeDescription(resources=Resources(memory_bytes=ROOM.memory_bytes + 1))
    view.put(Node(Meta("n9"), NodeSpec(), about, NodeStatus(NodeState.READY)))
    rounds(view)
    (task,) = view.tasks_unassigned()
    assert (task.service_id, view.tasks["big.000000"].node_id) == ("nowhere", "n9")
    assert task.status.message.endswith("scheduling constraints not satisfied on 4 nodes)")


def test_those_that_wait_longest_are_first_whatever_the_order_in_which_they_are_read():
    """As from a store, which orders by id."""
    old = Task(Meta("z", created_at_ns=1), "a", status=TaskStatus(state=TaskState.PENDING))
    middle = Task(Meta("a", created_at_ns=2), "b", status=TaskStatus(state=TaskState.PENDING))
    new = Task(Meta("b", created_at_ns=3), "a", status=TaskStatus(state=TaskState.PENDING))
    view = View([middle, new, old])
    assert [(id, list(tasks)) for id, tasks in Queue(view).groups().items()] == [("a", ["z", "b"]), ("b", ["a"])]
