import pytest

from manager.scheduler.rank import FAILURES_WITHIN_NS, spread_key
from shoal.errors import InvalidArgument
from shoal.model.container import RestartCondition, RestartPolicy
from shoal.model.task import TaskState

POLICY = RestartPolicy(condition=RestartCondition.ANY)


def failing_world(new_world, *, clock_off_ns=0):
    """The service has failed five times on n1, which has fewer tasks than n2, and maybe a wrong clock."""
    world = new_world(nodes=1, task_history=20)
    world.service(replicas=5, restart=POLICY)
    world.converge()
    for task in world.running():
        world.report(task, TaskState.FAILED, at_ns=world.now_ns + clock_off_ns)
    world.node("n2")
    world.service("other", replicas=20)
    return world


def test_a_node_where_this_version_keeps_failing_comes_last(new_world):
    world = failing_world(new_world)
    world.settle()
    assert world.spread() == {"n2": 5}


@pytest.mark.parametrize("days", [-1, 1])
def test_a_wrong_clock_neither_hides_nor_keeps_failures(new_world, days):
    off_ns = days * 24 * 3600 * 10**9
    world = failing_world(new_world, clock_off_ns=off_ns)
    world.settle()
    assert world.spread() == {"n2": 5}
    world = failing_world(new_world, clock_off_ns=off_ns)
    world.advance(FAILURES_WITHIN_NS / 1e9 + 1)
    world.settle()
    assert "n1" in world.spread()


def test_another_version_begins_with_a_clean_record(new_world):
    world = failing_world(new_world)
    world.service(replicas=5, restart=POLICY, force=1)
    world.settle()
    assert "n1" in world.spread()


def test_failures_are_forgotten_after_a_while(new_world):
    world = failing_world(new_world)
    world.advance(FAILURES_WITHIN_NS / 1e9 + 1)
    world.settle()
    assert "n1" in world.spread()


def test_a_failing_node_is_better_than_none(new_world):
    world = new_world(nodes=1)
    world.service(replicas=5, restart=POLICY)
    world.converge()
    for task in world.running():
        world.report(task, TaskState.FAILED)
    world.converge()
    assert len(world.running()) == 5


@pytest.mark.parametrize("text", ["spread=node.labels.zone", " spread = node.labels.zone ", "spread=engine.labels.x"])
def test_preferences_that_are_known(text):
    assert spread_key(text).split(".")[1] == "labels"


@pytest.mark.parametrize("text", ["", "zone", "spread=", "spread=node.id", "binpack=node.labels.zone"])
def test_preferences_that_are_not(text):
    with pytest.raises(InvalidArgument, match="write it as spread="):
        spread_key(text)
