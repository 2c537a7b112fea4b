import pytest

from manager.orchestrator.departure import PATIENCE_NS
from shoal.model.base import Resources
from shoal.model.network import Port, PublishMode
from shoal.model.node import Availability, NodeState
from shoal.model.service import Placement, UpdateOrder, UpdatePolicy
from shoal.model.task import TaskState

START_FIRST = UpdatePolicy(parallelism=1, order=UpdateOrder.START_FIRST)
PATIENCE_S = PATIENCE_NS / 1e9


def drain(world, **spec):
    """The node of a service's only task is drained, which is decided on; the task."""
    world.service(**spec)
    world.converge()
    (old,) = world.running()
    world.availability(old.node_id, Availability.DRAIN)
    world.settle()
    return old


def now(world, task):
    return world.view.tasks[task.meta.id]


def ends(world, task):
    return now(world, task).desired == TaskState.SHUTDOWN


def successor(world, old):
    (new,) = [task for task in world.tasks(wanted=True) if task.meta.id != old.meta.id]
    return new


def test_a_task_on_a_drained_node_ends_when_the_next_one_runs(world):
    old = drain(world)
    new = successor(world, old)
    assert (new.slot, new.desired) == (old.slot, TaskState.RUNNING)
    assert new.node_id not in ("", old.node_id)
    for state in (TaskState.PREPARING, TaskState.STARTING):
        world.report(new, state)
        world.settle()
        assert not ends(world, old)
    world.report(new, TaskState.RUNNING)
    world.settle()
    assert ends(world, old)
    world.converge()
    assert [task.meta.id for task in world.running()] == [new.meta.id]


def test_no_place_is_without_a_running_task_while_all_of_them_move(new_world):
    world = new_world(nodes=1)
    world.service(replicas=5)
    world.converge()
    world.node("n2")
    world.availability("n1", Availability.DRAIN)
    for _ in range(20):
        world.settle()
        assert {task.slot for task in world.running()} == {1, 2, 3, 4, 5}
        arriving = [task for task in world.tasks(wanted=True) if task.status.state == TaskState.ASSIGNED]
        for task in arriving[:1]:
            world.report(task, TaskState.RUNNING)
    world.converge()
    assert world.spread() == {"n2": 5}


def test_a_task_that_has_nowhere_to_go_ends_at_once(new_world):
    world = new_world(nodes=1)
    old = drain(world)
    assert ends(world, old)
    world.converge()
    assert now(world, old).status.state == TaskState.SHUTDOWN


def test_a_task_whose_next_one_fits_nowhere_ends_when_its_time_is_over(new_world):
    world = new_world(nodes=1)
    world.node("n2", memory_bytes=1)
    old = drain(world, reservations=Resources(memory_bytes=1 << 20))
    world.converge(seconds=PATIENCE_S - 1)
    assert not ends(world, old)
    world.converge(seconds=1)
    assert now(world, old).status.state == TaskState.SHUTDOWN
    world.availability(old.node_id, Availability.ACTIVE)
    world.converge()
    assert len(world.running()) == 1


def test_what_fails_in_its_place_again_and_again_keeps_it_no_longer(world):
    old = drain(world)
    for _ in range(int(PATIENCE_S)):
        for task in world.tasks(wanted=True):
            if task.meta.id != old.meta.id and task.status.state >= TaskState.ASSIGNED:
                world.report(task, TaskState.FAILED)
        world.settle()
        assert len(world.tasks()) <= 8
        assert not ends(world, old)
        world.advance(1)
    world.settle()
    assert ends(world, old)


def test_a_clock_that_is_set_back_makes_nobody_stay_longer(world):
    old = drain(world)
    world.shift(-3600)
    world.report(successor(world, old), TaskState.PREPARING)
    world.settle()
    assert ends(world, old)


def test_a_new_leader_knows_who_departs(new_world):
    old = new_world(nodes=2)
    departed = drain(old)
    new = new_world()
    for kind in ("node", "network", "lease", "service", "task"):
        for value in old.view.all(kind).values():
            new.write(value)
    new.now_ns = old.now_ns + PATIENCE_NS // 2
    assert new.settle() == []
    new.advance(PATIENCE_S / 2)
    new.settle()
    assert ends(new, departed)


def test_a_node_that_dies_while_it_is_drained_keeps_nothing(world):
    old = drain(world)
    world.state(old.node_id, NodeState.DOWN)
    world.settle()
    assert ends(world, old)
    world.converge()
    assert len(world.running()) == 1


def test_who_has_begun_to_depart_does_so_though_its_node_is_wanted_again(world):
    old = drain(world)
    world.availability(old.node_id, Availability.ACTIVE)
    world.converge()
    assert now(world, old).finished
    assert len(world.running()) == 1


def test_what_does_not_run_yet_is_waited_for_by_nobody(world):
    world.service()
    world.settle()
    (old,) = world.tasks(wanted=True)
    world.availability(old.node_id, Availability.DRAIN)
    world.settle()
    assert ends(world, old)


def test_the_next_one_moves_on_when_its_node_is_drained_too(world):
    old = drain(world)
    first = successor(world, old)
    world.availability(first.node_id, Availability.DRAIN)
    world.settle()
    assert ends(world, first) and not ends(world, old)
    world.converge()
    (last,) = world.running()
    assert last.node_id not in (old.node_id, first.node_id)


@pytest.mark.parametrize(
    ("spec", "departs"),
    [
        ({"ports": (Port(target=80, published=80),)}, True),
        ({"ports": (Port(target=80, published=80, mode=PublishMode.HOST),)}, False),
        ({"placement": Placement(max_per_node=1)}, False),
        ({"placement": Placement(max_per_node=1), "update": START_FIRST}, True),
    ],
)
def test_places_that_wait_for_each_other_are_given_up_before_they_are_filled(world, spec, departs):
    old = drain(world, **spec)
    assert ends(world, old) is not departs
    new = successor(world, old)
    assert new.desired == (TaskState.RUNNING if departs else TaskState.READY)
    world.converge()
    assert len(world.running()) == 1


def test_a_global_services_task_just_ends(world):
    world.global_service()
    world.converge()
    world.availability("n1", Availability.DRAIN)
    world.settle()
    assert [task.node_id for task in world.tasks(wanted=False)] == ["n1"]
    assert not any(task.depart_by_ns for task in world.tasks())


@pytest.mark.parametrize("order", UpdateOrder)
def test_an_update_takes_over_from_what_departs(world, order):
    update = UpdatePolicy(parallelism=1, order=order)
    drain(world, update=update)
    world.service(update=update, force=1)
    for _ in range(6):
        world.settle()
        assert len(world.tasks(wanted=True)) <= 2
        world.agents()
    world.converge()
    assert [task.task_version for task in world.running()] == [2]


def test_who_departs_is_not_counted_where_its_successor_is_placed(world):
    """Of two zones, the one that it leaves has as few as the other."""
    world.node("n1", labels={"zone": "east"})
    world.node("n2", labels={"zone": "east"})
    world.node("n3", labels={"zone": "west"})
    world.service(replicas=2, placement=Placement(preferences=("spread=node.labels.zone",)))
    world.converge()
    (east,) = [task.node_id for task in world.running() if task.node_id != "n3"]
    world.availability(east, Availability.DRAIN)
    world.converge()
    assert world.spread() == {"n3": 1, ("n2" if east == "n1" else "n1"): 1}


def test_what_is_scaled_down_while_it_departs_is_removed(world):
    drain(world)
    world.service(replicas=0)
    world.converge()
    assert world.tasks() == []
