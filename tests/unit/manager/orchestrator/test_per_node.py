from shoal.model.base import Resources
from shoal.model.node import Availability, NodeState
from shoal.model.service import Placement, UpdatePolicy
from shoal.model.task import TaskState


def test_one_task_on_every_node_that_can_take_it(world):
    world.node("n4", availability=Availability.DRAIN)
    world.node("n5", availability=Availability.PAUSE)
    world.node("n6", state=NodeState.DOWN)
    world.global_service()
    world.converge()
    assert world.spread() == {"n1": 1, "n2": 1, "n3": 1}
    assert {task.slot for task in world.tasks()} == {0}


def test_a_node_that_joins_gets_one(world):
    world.global_service()
    world.converge()
    world.node("n4")
    world.converge()
    assert world.spread()["n4"] == 1


def test_a_node_that_leaves_loses_its_own(world):
    world.global_service()
    world.converge()
    world.remove(world.view.nodes["n1"])
    world.converge()
    assert world.spread() == {"n2": 1, "n3": 1}
    assert all(task.node_id != "n1" for task in world.tasks())


def test_a_drained_node_has_its_task_shut_down_and_gets_another_later(world):
    world.global_service()
    world.converge()
    world.availability("n1", Availability.DRAIN)
    world.converge()
    assert world.spread() == {"n2": 1, "n3": 1}
    world.availability("n1", Availability.ACTIVE)
    world.converge()
    assert world.spread() == {"n1": 1, "n2": 1, "n3": 1}


def test_a_paused_node_keeps_what_it_has(world):
    world.global_service()
    world.converge()
    world.availability("n1", Availability.PAUSE)
    world.global_service(force=1)
    world.converge()
    versions = {task.node_id: task.task_version for task in world.running()}
    assert versions == {"n1": 1, "n2": 2, "n3": 2}


def test_a_task_that_a_paused_node_was_sent_already_is_let_go_when_its_turn_comes(world):
    world.global_service()
    world.converge()
    world.global_service(force=1, update=UpdatePolicy(parallelism=0))
    world.settle()
    for id in ("n1", "n2"):
        world.availability(id, Availability.PAUSE)
    world.converge()
    assert {task.node_id: task.task_version for task in world.running()} == {"n1": 2, "n2": 2, "n3": 2}


def test_a_paused_node_takes_part_in_no_update(world):
    world.global_service()
    world.converge()
    world.availability("n1", Availability.PAUSE)
    world.global_service(force=1)
    world.converge()
    assert {task.node_id: task.task_version for task in world.running()} == {"n1": 1, "n2": 2, "n3": 2}
    world.availability("n1", Availability.ACTIVE)
    world.converge()
    assert {task.task_version for task in world.running()} == {2}


def test_constraints_choose_the_nodes(world):
    world.node("n4", labels={"disk": "ssd"})
    world.global_service(placement=Placement(constraints=("node.labels.disk==ssd",)))
    world.converge()
    assert world.spread() == {"n4": 1}


def test_a_dead_nodes_task_is_not_made_elsewhere(world):
    world.global_service()
    world.converge()
    world.state("n1", NodeState.DOWN)
    world.converge()
    assert world.spread() == {"n2": 1, "n3": 1}
    world.state("n1", NodeState.READY)
    world.converge()
    assert world.spread() == {"n1": 1, "n2": 1, "n3": 1}
    assert len(world.running()) == 3


def test_a_node_without_room_says_so(world):
    world.node("small", memory_bytes=1 << 20)
    world.global_service(reservations=Resources(memory_bytes=1 << 30))
    world.converge()
    (waiting,) = [task for task in world.tasks() if task.node_id == "small"]
    assert waiting.status.state == TaskState.PENDING
    assert waiting.status.message == "no suitable node (insufficient resources on 1 node): too little memory"


def test_a_task_that_waits_for_room_goes_when_its_node_is_drained(world):
    world.node("small", memory_bytes=1 << 20)
    world.global_service(reservations=Resources(memory_bytes=1 << 30))
    world.converge()
    world.availability("small", Availability.DRAIN)
    world.converge()
    assert all(task.node_id != "small" for task in world.tasks())


def test_an_update_goes_node_by_node(world):
    world.global_service()
    world.converge()
    world.global_service(force=1)
    world.settle()
    assert sum(task.task_version == 2 for task in world.tasks()) == 1
    world.converge()
    assert {task.task_version for task in world.running()} == {2}
