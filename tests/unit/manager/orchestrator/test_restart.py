import pytest

from manager.orchestrator import restart
from shoal.model.container import RestartCondition, RestartPolicy
from shoal.model.node import NodeState
from shoal.model.service import UpdatePolicy
from shoal.model.task import TaskState

SECOND = 1_000_000_000


def policy(condition=RestartCondition.ANY, **kwargs):
    return RestartPolicy(condition=condition, **kwargs)


def end(world, state=TaskState.FAILED):
    """The one running task ends by itself, and its end is decided on."""
    (task,) = world.running()
    world.report(task, state)
    world.settle()
    return task


@pytest.mark.parametrize("state", [TaskState.COMPLETE, TaskState.FAILED, TaskState.REJECTED])
def test_any_restarts_whatever_the_end(world, state):
    world.service(restart=policy())
    world.converge()
    end(world, state)
    world.agents()
    assert len(world.running()) == 1


def test_on_failure_leaves_what_is_complete(world):
    world.service(restart=policy(RestartCondition.ON_FAILURE))
    world.converge()
    end(world, TaskState.FAILED)
    world.converge()
    end(world, TaskState.COMPLETE)
    assert world.tasks(wanted=True) == []
    assert {task.desired for task in world.tasks()} == {TaskState.SHUTDOWN}


def test_none_restarts_nothing(world):
    world.service(restart=policy(RestartCondition.NONE))
    world.converge()
    end(world, TaskState.FAILED)
    world.converge(seconds=3600)
    assert world.tasks(wanted=True) == []


def test_a_task_of_a_dead_node_is_replaced_whatever_the_policy(world):
    world.service(restart=policy(RestartCondition.NONE))
    world.converge()
    (task,) = world.running()
    world.state(task.node_id, NodeState.DOWN)
    world.converge()
    assert [each.slot for each in world.running()] == [1]


@pytest.mark.parametrize("state", [TaskState.FAILED, TaskState.REJECTED])
def test_a_clock_that_is_set_back_makes_no_wait_longer(world, state):
    world.service(restart=policy(delay_ns=5 * SECOND))
    world.converge()
    for _ in range(2):
        world.shift(3600)
        failed = end(world, state)
        world.agents()
        world.shift(-3600)
        world.converge(seconds=10)
        (task,) = world.running()
        assert task is not failed
        assert world.tasks()[-1] == task == world.tasks(wanted=True)[-1]


def test_the_next_task_prepares_at_once_and_runs_after_the_delay(world):
    world.service(restart=policy(delay_ns=5 * SECOND))
    world.converge()
    end(world)
    (waiting,) = world.tasks(wanted=True)
    assert waiting.desired == TaskState.READY
    world.converge(seconds=4.9)
    assert world.running() == []
    world.converge(seconds=0.2)
    assert [task.meta.id for task in world.running()] == [waiting.meta.id]


def test_a_new_leader_keeps_the_delay(new_world):
    """All that counts is stored: a world with nothing but the records decides the same."""
    old = new_world(nodes=1)
    old.service(restart=policy(delay_ns=5 * SECOND))
    old.converge()
    end(old)
    new = new_world()
    for kind in ("node", "network", "lease", "service", "task"):
        for value in old.view.all(kind).values():
            new.write(value)
    new.now_ns = old.now_ns + 4 * SECOND
    new.settle()
    assert [task.desired for task in new.tasks(wanted=True)] == [TaskState.READY]
    new.advance(1.1)
    new.settle()
    assert [task.desired for task in new.tasks(wanted=True)] == [TaskState.RUNNING]


def test_no_more_than_max_attempts(world):
    world.service(restart=policy(max_attempts=2))
    world.converge()
    for _ in range(3):
        end(world)
        world.converge(seconds=1)
    assert world.tasks(wanted=True) == []
    assert len(world.tasks()) == 3


def test_an_update_begins_to_count_anew(world):
    world.service(restart=policy(max_attempts=1))
    world.converge()
    for _ in range(2):
        end(world)
        world.converge(seconds=1)
    assert world.running() == []
    world.service(restart=policy(max_attempts=1), force=1)
    world.converge()
    assert [task.task_version for task in world.running()] == [2]


def test_attempts_outside_of_the_window_do_not_count(world):
    world.service(restart=policy(max_attempts=1, window_ns=10 * SECOND))
    world.converge()
    for _ in range(4):
        world.advance(60)
        end(world)
        world.converge(seconds=1)
    assert len(world.running()) == 1
    world.advance(1)
    end(world)
    world.converge(seconds=1)
    assert world.running() == []


def test_what_is_over_stays_over_when_the_window_has_passed(world):
    world.service(restart=policy(max_attempts=1, window_ns=10 * SECOND))
    world.converge()
    for _ in range(2):
        end(world)
        world.converge(seconds=1)
    assert world.running() == []
    world.converge(seconds=3600)
    assert world.running() == []


def test_without_a_delay_a_crash_loop_still_slows_down(world):
    service = world.service(restart=policy())
    world.converge()
    waits = []
    for _ in range(5):
        end(world)
        (slot,) = {task.slot for task in world.tasks()}
        from_stored = restart.delay_ns(service, _slot(world, slot), _slot(world, slot).tasks[-2])
        waits.append(from_stored)
        world.converge(seconds=10)
    assert waits[0] == 0 and waits == sorted(waits) and waits[-1] > waits[1] > 0


def test_an_agents_clock_that_runs_ahead_delays_nothing(world):
    world.service(restart=policy(delay_ns=5 * SECOND))
    world.converge()
    (task,) = world.running()
    world.report(task, TaskState.FAILED, at_ns=world.now_ns + 86_400 * SECOND)
    world.settle()
    world.converge(seconds=5.1)
    assert len(world.running()) == 1


def test_an_agents_clock_that_runs_ahead_does_not_stop_an_update(world):
    update = UpdatePolicy(parallelism=1, delay_ns=5 * SECOND)
    world.service(replicas=2, update=update)
    world.converge()
    world.service(replicas=2, update=update, force=1)
    for _ in range(12):
        world.settle()
        for task in world.tasks(wanted=True):
            world.report(task, task.desired, at_ns=world.now_ns + 86_400 * SECOND)
        for task in world.tasks(wanted=False):
            world.report(task, TaskState.SHUTDOWN)
        world.advance(1)
    assert {task.task_version for task in world.running()} == {2}


def test_a_stopping_task_holds_its_place_only_so_long(world):
    world.service()
    world.converge()
    (old,) = world.running()
    world.service(force=1)
    world.settle()
    for _ in range(3):
        world.settle()
        for task in world.tasks(wanted=True):
            world.report(task, task.desired)
        world.advance(15)
    assert world.view.tasks[old.meta.id].status.state == TaskState.RUNNING
    assert world.tasks(wanted=True)[0].desired == TaskState.READY
    world.advance(60)
    world.settle()
    assert world.tasks(wanted=True)[0].desired == TaskState.RUNNING


def _slot(world, number):
    from manager.orchestrator.places import Places

    return world.view.follower(Places).of("web")[number]
