import pytest

from shoal.model.node import Availability, NodeState
from shoal.model.task import TaskState


def test_slots_are_numbered_from_one(world):
    world.service(replicas=3)
    world.converge()
    assert [task.slot for task in world.running()] == [1, 2, 3]


def test_scale_up_fills_the_missing_numbers(world):
    world.service(replicas=4)
    world.converge()
    world.service(replicas=2)
    world.converge()
    kept = {task.slot for task in world.running()}
    world.service(replicas=5)
    world.converge()
    assert kept < {task.slot for task in world.running()} == {1, 2, 3, 4, 5}


def test_scale_down_prefers_the_crowded_node(world):
    world.node("n2", state=NodeState.DOWN)
    world.node("n3", state=NodeState.DOWN)
    world.service(replicas=4)
    world.converge()
    world.state("n2", NodeState.READY)
    world.state("n3", NodeState.READY)
    world.service(replicas=6)
    world.converge()
    assert world.spread() == {"n1": 4, "n2": 1, "n3": 1}
    world.service(replicas=3)
    world.converge()
    assert world.spread() == {"n1": 1, "n2": 1, "n3": 1}


def test_scale_down_drops_what_does_not_run_first(new_world):
    world = new_world(nodes=1)
    world.service(replicas=3)
    world.settle()
    for task in world.tasks()[1:]:
        world.report(task, TaskState.RUNNING)
    world.service(replicas=2)
    world.settle()
    assert [task.slot for task in world.tasks(wanted=True)] == [2, 3]


def test_of_equals_the_highest_slot_is_dropped(new_world):
    world = new_world(nodes=1)
    world.service(replicas=5)
    world.converge()
    world.service(replicas=2)
    world.converge()
    assert [task.slot for task in world.running()] == [1, 2]


def test_what_is_scaled_away_is_forgotten_after_it_has_ended(world):
    world.service(replicas=3)
    world.converge()
    world.service(replicas=1)
    world.settle()
    assert [task.desired for task in world.tasks(wanted=False)] == [TaskState.REMOVE] * 2
    world.agents()
    world.settle()
    assert len(world.tasks()) == 1


def test_a_removed_service_takes_its_tasks_along(world):
    service = world.service(replicas=3)
    world.converge()
    world.remove(service)
    world.settle()
    assert {task.desired for task in world.tasks()} == {TaskState.REMOVE}
    world.agents()
    world.settle()
    assert world.tasks() == []


def test_unassigned_tasks_of_a_removed_service_are_forgotten_at_once(new_world):
    world = new_world(nodes=0)
    service = world.service(replicas=3)
    world.settle()
    assert len(world.tasks()) == 3
    world.remove(service)
    world.settle()
    assert world.tasks() == []


@pytest.mark.parametrize(("nodes", "state"), [(0, TaskState.PENDING), (1, TaskState.ASSIGNED)])
def test_a_new_task_begins_as_far_as_it_can_get(new_world, nodes, state):
    """Each state that is skipped is a write less."""
    world = new_world(nodes=nodes)
    world.service(replicas=1)
    made = [action.value for action in world.settle() if action.kind == "task" and action.guard == 0]
    assert [task.status.state for task in made] == [state]


def test_drained_tasks_move_and_keep_their_slots(world):
    world.service(replicas=6)
    world.converge()
    world.availability("n1", Availability.DRAIN)
    world.converge()
    assert world.spread() == {"n2": 3, "n3": 3}
    assert [task.slot for task in world.running()] == [1, 2, 3, 4, 5, 6]


def test_a_dead_nodes_tasks_are_replaced_at_once(world):
    world.service(replicas=3)
    world.converge()
    world.state("n1", NodeState.DOWN)
    world.settle()
    assert {task.desired for task in world.tasks(wanted=True)} == {TaskState.RUNNING}
    world.agents()
    assert len(world.running()) == 3


def test_ten_thousand_replicas_are_made_in_parts(new_world):
    world = new_world(nodes=5)
    world.service(replicas=5000)
    world.settle()
    assert world.spread() == {f"n{number}": 1000 for number in range(1, 6)}
