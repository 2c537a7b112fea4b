from manager.control.action import Put
from manager.orchestrator.update import restarts
from shoal.model.base import Resources
from shoal.model.container import RestartCondition, RestartPolicy
from shoal.model.network import Port, PublishMode
from shoal.model.node import NodeState
from shoal.model.service import Placement, ServiceSpec, TaskSpec, UpdateOrder, UpdatePolicy
from shoal.model.task import TaskState

SECOND = 1_000_000_000


HUGE = Resources(memory_bytes=1 << 50)


def is_placed(action):
    return isinstance(action, Put) and action.kind == "task" and action.value.status.state == TaskState.ASSIGNED


def versions(world):
    return sorted(task.task_version for task in world.running())


def test_one_place_at_a_time(world):
    world.service(replicas=3)
    world.converge()
    world.service(replicas=3, force=1)
    fewest = []
    for _ in range(20):
        world.settle()
        fewest.append(len(world.running()))
        world.agents()
    assert min(fewest) == 2
    assert versions(world) == [2, 2, 2]


def test_as_many_at_a_time_as_the_policy_says(world):
    update = UpdatePolicy(parallelism=2)
    world.service(replicas=5, update=update)
    world.converge()
    world.service(replicas=5, update=update, force=1)
    world.settle()
    assert len(world.running()) == 3


def test_parallelism_zero_is_all_at_once(world):
    update = UpdatePolicy(parallelism=0)
    world.service(replicas=5, update=update)
    world.converge()
    world.service(replicas=5, update=update, force=1)
    world.settle()
    assert world.running() == []
    world.converge()
    assert versions(world) == [2] * 5


def test_the_delay_lies_between_places(world):
    update = UpdatePolicy(parallelism=1, delay_ns=10 * SECOND)
    world.service(replicas=3, update=update)
    world.converge()
    world.service(replicas=3, update=update, force=1)
    world.converge()
    assert versions(world) == [1, 1, 2]
    world.converge(seconds=9)
    assert versions(world) == [1, 1, 2]
    world.converge(seconds=1.1)
    assert versions(world) == [1, 2, 2]


def test_stop_first_never_runs_two_in_a_place(world):
    world.service(replicas=2)
    world.converge()
    world.service(replicas=2, force=1)
    for _ in range(10):
        world.settle()
        slots = [task.slot for task in world.tasks() if TaskState.STARTING <= task.status.state <= TaskState.RUNNING]
        assert len(slots) == len(set(slots))
        world.agents()
    assert versions(world) == [2, 2]


def test_start_first_never_has_fewer(world):
    update = UpdatePolicy(parallelism=1, order=UpdateOrder.START_FIRST)
    world.service(replicas=3, update=update)
    world.converge()
    world.service(replicas=3, update=update, force=1)
    most = 0
    for _ in range(20):
        world.settle()
        assert len(world.running()) >= 3
        most = max(most, len(world.tasks(wanted=True)))
        world.agents()
    assert most == 4
    assert versions(world) == [2, 2, 2]


def test_start_first_keeps_the_old_one_while_the_new_one_fails(world):
    update = UpdatePolicy(parallelism=1, order=UpdateOrder.START_FIRST)
    restart = RestartPolicy(condition=RestartCondition.ANY, delay_ns=SECOND)
    world.service(replicas=2, update=update, restart=restart)
    world.converge()
    world.service(replicas=2, update=update, restart=restart, force=1)
    for _ in range(8):
        world.settle()
        for task in world.tasks(wanted=True):
            world.report(task, TaskState.FAILED if task.task_version == 2 else TaskState.RUNNING)
        world.advance(2)
    assert versions(world) == [1, 1]
    assert len({task.slot for task in world.tasks() if task.task_version == 2}) == 1


def test_an_update_whose_tasks_fail_goes_no_further(world):
    world.service(replicas=4)
    world.converge()
    world.service(replicas=4, force=1)
    for _ in range(12):
        world.settle()
        for task in world.tasks(wanted=True):
            if task.task_version == 2:
                world.report(task, TaskState.REJECTED)
        world.agents()
        world.advance(1)
    assert versions(world) == [1, 1, 1]


def test_what_could_not_be_placed_is_brought_up_to_date_at_once(world):
    """Nothing runs there: waiting for one after the other would only keep the service away."""
    world.service(replicas=5, placement=Placement(("node.labels.no==where",)), reservations=HUGE)
    world.settle()
    old = {task.meta.id for task in world.tasks()}
    world.service(replicas=5, placement=Placement(("node.labels.no==where",)), reservations=HUGE, force=1)
    world.service(replicas=5, force=2)
    world.settle()
    assert [task.task_version for task in world.tasks()] == [3] * 5
    assert all(task.status.state == TaskState.ASSIGNED for task in world.tasks())
    assert old.isdisjoint(task.meta.id for task in world.tasks())


def test_an_outdated_task_is_not_placed_even_where_it_would_fit(world):
    """Its spec may be known no more; one of the present version takes its place, and the old ones run on meanwhile."""
    start_first = UpdatePolicy(parallelism=1, order=UpdateOrder.START_FIRST)
    world.service(replicas=2, update=start_first)
    world.converge()
    for force in (1, 2):
        world.service(replicas=2, update=start_first, force=force, reservations=HUGE)
        world.settle()
    world.service(replicas=2, update=start_first, force=3)
    placed = {action.value.task_version for action in world.settle() if is_placed(action)}
    assert placed == {4}
    world.converge()
    assert versions(world) == [4, 4]


def test_a_new_update_takes_over_from_one_under_way(world):
    world.service(replicas=4)
    world.converge()
    world.service(replicas=4, force=1)
    world.settle()
    world.service(replicas=4, force=2)
    world.converge()
    assert versions(world) == [3, 3, 3, 3]


def test_more_replicas_restart_nothing(world):
    world.service(replicas=2)
    world.converge()
    before = {task.meta.id for task in world.running()}
    world.service(replicas=4)
    world.converge()
    assert before < {task.meta.id for task in world.running()}


def test_another_placement_restarts_nothing_that_may_stay(world):
    for name in ("n1", "n2", "n3"):
        world.node(name, labels={"zone": "a"})
    world.service(replicas=3)
    world.converge()
    before = {task.meta.id for task in world.running()}
    for number in range(3):  # one after the other: only one spec before the present one is known
        world.service(replicas=3, placement=Placement(("node.labels.zone==a",), max_per_node=10 + number))
        world.settle()
    world.converge()
    assert {task.meta.id for task in world.running()} == before
    assert versions(world) == [4, 4, 4]


def test_another_restart_policy_restarts_nothing(world):
    world.service(replicas=2)
    world.converge()
    before = {task.meta.id for task in world.running()}
    world.service(replicas=2, restart=RestartPolicy(RestartCondition.ON_FAILURE))
    world.converge()
    assert {task.meta.id for task in world.running()} == before


def test_what_restarts_a_task():
    spec = ServiceSpec(task=TaskSpec())
    assert not restarts(spec, ServiceSpec(replicas=3, task=TaskSpec(placement=Placement(("node.id==x",)))))
    assert restarts(spec, ServiceSpec(task=TaskSpec(force_update=1)))
    assert restarts(spec, ServiceSpec(ports=(Port(target=80, mode=PublishMode.HOST),)))
    assert restarts(spec, ServiceSpec(ports=(Port(target=80),)))  # it joins the ingress network
    one, other = ServiceSpec(ports=(Port(target=80),)), ServiceSpec(ports=(Port(target=81),))
    assert not restarts(one, other)


def test_places_that_do_not_run_are_updated_first(world):
    world.service(replicas=3)
    world.settle()
    for task in world.tasks()[:2]:
        world.report(task, TaskState.RUNNING)
    world.service(replicas=3, force=1)
    world.settle()
    assert [task.slot for task in world.tasks() if task.task_version == 2] == [3]


def test_a_place_on_a_dead_node_does_not_wait_for_it(world):
    world.service(replicas=1)
    world.converge()
    (old,) = world.running()
    world.service(replicas=1, force=1)
    world.settle()
    assert world.tasks(wanted=True)[0].desired == TaskState.READY
    world.state(old.node_id, NodeState.DOWN)
    world.settle()
    assert world.tasks(wanted=True)[0].desired == TaskState.RUNNING


def test_an_update_keeps_count_without_any_history(new_world):
    world = new_world(nodes=3, task_history=0)
    update = UpdatePolicy(parallelism=1, delay_ns=10 * SECOND)
    world.service(replicas=3, update=update)
    world.converge()
    world.service(replicas=3, update=update, force=1)
    world.converge()
    assert versions(world) == [1, 1, 2]
    for _ in range(2):
        world.converge(seconds=10)
    assert versions(world) == [2, 2, 2]
    assert len(world.tasks()) == 3
