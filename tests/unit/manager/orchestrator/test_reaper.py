from shoal.model.container import RestartCondition, RestartPolicy
from shoal.model.node import NodeState
from shoal.model.task import TaskState

SECOND = 1_000_000_000
AT_ONCE = RestartPolicy(condition=RestartCondition.ANY)


def fail_often(world, times):
    for _ in range(times):
        for task in world.running():
            world.report(task, TaskState.FAILED)
        world.converge(seconds=10)


def test_a_place_keeps_its_last_few(world):
    world.service(replicas=2, restart=AT_ONCE)
    world.converge()
    fail_often(world, 8)
    finished = [task for task in world.tasks() if task.finished]
    assert len(finished) == 2 * 5
    first_kept = min(task.meta.created_at_ns for task in finished)
    assert first_kept > world.view.services["web"].meta.created_at_ns  # the oldest went first


def test_the_operator_says_how_many(new_world):
    world = new_world(nodes=1, task_history=1)
    world.service(restart=AT_ONCE)
    world.converge()
    fail_often(world, 4)
    assert len(world.tasks()) == 2


def test_enough_is_kept_to_count_attempts(new_world):
    world = new_world(nodes=1, task_history=0)
    world.service(restart=RestartPolicy(condition=RestartCondition.ANY, max_attempts=3))
    world.converge()
    fail_often(world, 6)
    assert world.tasks(wanted=True) == []
    assert len(world.tasks()) == 4


def test_a_vacant_place_keeps_the_reason(new_world):
    world = new_world(nodes=1, task_history=0)
    world.service(restart=RestartPolicy(condition=RestartCondition.NONE))
    world.converge()
    fail_often(world, 1)
    assert [task.status.state for task in world.tasks()] == [TaskState.FAILED]


def test_a_smaller_history_is_cut_at_once(world):
    world.service(restart=AT_ONCE)
    world.converge()
    fail_often(world, 5)
    cluster = world.view.cluster
    world.write(type(cluster)(cluster.meta, type(cluster.spec)(task_history=1)))
    world.settle()
    assert len(world.tasks()) == 2


def test_a_task_to_be_removed_waits_for_its_end(world):
    service = world.service(replicas=2)
    world.converge()
    world.remove(service)
    world.settle()
    assert len(world.tasks()) == 2
    world.report(world.tasks()[0], TaskState.SHUTDOWN)
    world.settle()
    assert len(world.tasks()) == 1


def test_a_task_to_be_removed_goes_with_its_node(world):
    service = world.service(replicas=3)
    world.converge()
    world.state("n1", NodeState.DOWN)
    world.remove(service)
    world.converge()
    assert [task.node_id for task in world.tasks()] == ["n1"]
    world.remove(world.view.nodes["n1"])
    world.converge()
    assert world.tasks() == []


def test_what_never_had_a_node_is_forgotten_when_replaced(new_world):
    world = new_world(nodes=0)
    world.service(replicas=2)
    world.settle()
    world.service(replicas=2, force=1)
    world.settle()
    world.converge(seconds=1)
    assert {task.task_version for task in world.tasks(wanted=True)} <= {1, 2}
    assert all(task.desired <= TaskState.RUNNING for task in world.tasks())
