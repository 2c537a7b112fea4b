from manager.orchestrator.enforce import ORPHAN_AFTER_NS
from shoal.model.node import Availability, NodeState
from shoal.model.service import Placement
from shoal.model.task import TaskState

ZONE_A = Placement(constraints=("node.labels.zone==a",))


def test_a_node_that_loses_its_label_loses_its_tasks(world):
    world.node("n1", labels={"zone": "a"})
    world.node("n2", labels={"zone": "a"})
    world.service(replicas=2, placement=ZONE_A)
    world.converge()
    world.node("n1")
    world.converge()
    assert world.spread() == {"n2": 2}


def test_the_services_present_constraints_win(world):
    world.node("n1", labels={"zone": "a"})
    world.service(replicas=3)
    world.converge()
    world.service(replicas=3, placement=ZONE_A)
    world.converge()
    assert world.spread() == {"n1": 3}


def test_a_paused_node_keeps_tasks_that_no_longer_fit(world):
    world.node("n1", labels={"zone": "a"})
    world.service(replicas=1, placement=ZONE_A)
    world.converge()
    world.node("n1", availability=Availability.PAUSE)
    world.converge()
    assert world.spread() == {"n1": 1}


def test_a_node_that_comes_back_is_told_to_end_what_was_replaced(world):
    world.service(replicas=3)
    world.converge()
    (old,) = [task for task in world.running() if task.node_id == "n1"]
    world.state("n1", NodeState.DOWN)
    world.converge()
    assert len(world.running()) == 3
    assert world.view.tasks[old.meta.id].status.state == TaskState.RUNNING  # nobody can tell otherwise
    world.state("n1", NodeState.READY)
    world.converge()
    assert world.view.tasks[old.meta.id].status.state == TaskState.SHUTDOWN
    assert len(world.running()) == 3


def test_after_a_day_a_dead_nodes_tasks_are_given_up(world):
    world.service(replicas=3)
    world.converge()
    (old,) = [task for task in world.running() if task.node_id == "n1"]
    world.state("n1", NodeState.DOWN)
    world.converge(seconds=ORPHAN_AFTER_NS / 1e9 - 1)
    assert world.view.tasks[old.meta.id].status.state == TaskState.RUNNING
    world.converge(seconds=2)
    assert world.view.tasks[old.meta.id].status.state == TaskState.ORPHANED


def test_a_removed_nodes_tasks_are_given_up_at_once(world):
    world.service(replicas=3)
    world.converge()
    (old,) = [task for task in world.running() if task.node_id == "n1"]
    world.remove(world.view.nodes["n1"])
    world.settle()
    assert world.view.tasks[old.meta.id].status.state == TaskState.ORPHANED
    world.converge()
    assert len(world.running()) == 3


def test_an_unknown_node_keeps_its_tasks(world):
    """After a change of leader nobody has called yet: that is no reason to move anything."""
    world.service(replicas=3)
    world.converge()
    before = {task.meta.id for task in world.running()}
    for node in ("n1", "n2", "n3"):
        world.state(node, NodeState.UNKNOWN)
    world.settle()
    assert {task.meta.id for task in world.running()} == before
