from shoal.model.base import Resources
from shoal.model.container import RestartCondition, RestartPolicy
from shoal.model.network import Port, PublishMode
from shoal.model.service import Placement
from shoal.model.task import TaskState

GIB = 1 << 30


def writes(world, service="web"):
    """How often each task of a service was written."""
    counts: dict[str, int] = {}
    for action in world.history:
        if action.kind == "task" and action.value.service_id == service:
            counts[action.value.meta.id] = counts.get(action.value.meta.id, 0) + 1
    return list(counts.values())


def test_a_task_that_can_be_placed_at_once_is_written_once(world):
    world.service(replicas=50)
    world.settle()
    assert writes(world) == [1] * 50
    assert sorted(world.spread().values()) == [16, 17, 17]


def test_services_that_are_created_together_see_each_other(new_world):
    world = new_world()
    for name in ("n1", "n2"):
        world.node(name, memory_bytes=2 * GIB)
    for name in ("a", "b"):
        world.service(name, replicas=2, reservations=Resources(memory_bytes=GIB))
    world.settle()
    assert world.spread("a") == world.spread("b") == {"n1": 1, "n2": 1}
    assert writes(world, "a") == writes(world, "b") == [1, 1]


def test_what_does_not_fit_is_created_and_told_why(new_world):
    world = new_world()
    world.node("n1", memory_bytes=2 * GIB)
    world.service(replicas=3, reservations=Resources(memory_bytes=GIB))
    world.settle()
    (waiting,) = (task for task in world.tasks() if task.status.state == TaskState.PENDING)
    assert waiting.status.message == "no suitable node (insufficient resources on 1 node): too little memory"
    assert sorted(writes(world)) == [1, 1, 2]


def test_tasks_that_are_stuck_make_nobody_wait(world):
    world.service("stuck", replicas=2, placement=Placement(("node.labels.no==where",)))
    world.settle()
    world.service(replicas=3)
    world.settle()
    assert writes(world) == [1, 1, 1]


def test_nobody_overtakes_tasks_that_have_waited_longer(new_world):
    """The node has room for one, that became free just now."""
    world = new_world()
    world.node("n1", memory_bytes=GIB)
    one = {"replicas": 1, "reservations": Resources(memory_bytes=GIB)}
    world.service("a-first", **one)
    world.converge()
    world.service("z-second", **one)
    world.settle()
    (running,) = world.running("a-first")
    world.report(running, TaskState.COMPLETE)
    world.service("a-first", 0)
    world.service("b-third", **one)
    world.settle()
    assert world.spread("z-second") == {"n1": 1}
    assert world.spread("b-third") == {"": 1}


def test_a_replacement_goes_where_its_place_becomes_free(new_world):
    """The old tasks are told to end in the same transaction, which the load does not know yet."""
    world = new_world(nodes=3)
    world.service(replicas=3, placement=Placement(max_per_node=1))
    world.converge()
    world.service(replicas=3, placement=Placement(max_per_node=1), force=1)
    for _ in range(6):
        world.converge()
    assert world.spread() == {"n1": 1, "n2": 1, "n3": 1}
    assert {task.task_version for task in world.running()} == {2}


def test_those_that_wait_are_told_anew_when_others_take_the_room(new_world):
    """They wait for a port; then, when a task that could not be prepared is tried again, for memory as well."""
    world = new_world()
    world.node("n1", memory_bytes=2 * GIB)
    one = {"reservations": Resources(memory_bytes=GIB)}
    world.service(restart=RestartPolicy(RestartCondition.ANY, delay_ns=10**10), **one)
    world.settle()
    port = Port(target=80, published=8080, mode=PublishMode.HOST)
    world.service("stuck", replicas=2, ports=(port,), **one)
    world.report(world.tasks()[0], TaskState.REJECTED)
    world.settle()
    assert world.tasks("stuck")[1].status.message == "no suitable node (host-mode port already in use on 1 node)"
    world.advance(20)
    world.settle()
    assert world.tasks("stuck")[1].status.message.endswith("too little memory")
