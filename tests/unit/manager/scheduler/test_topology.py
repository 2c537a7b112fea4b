"""Topologies as SwarmKit tests its scheduler with: what stays even when branches, room and history are not."""

import pytest

from shoal.model.base import Resources
from shoal.model.container import RestartCondition, RestartPolicy
from shoal.model.network import Port, PublishMode
from shoal.model.node import Availability, NodeState
from shoal.model.service import Placement
from shoal.model.task import TaskState

GIB = 1 << 30
ZONES_THEN_RACKS = ("spread=node.labels.zone", "spread=node.labels.rack")
TREE = {
    "a": ("z1", "r1"),
    "b": ("z1", "r1"),
    "c": ("z1", "r2"),
    "d": ("z2", "r1"),
    "e": ("z2", "r1"),
    "f": ("z2", "r2"),
    "g": ("z2", "r2"),
    "h": ("z2", "r2"),
}


def tree(new_world, **room):
    """Two zones of two racks; `room` limits the memory of some nodes, in GiB."""
    world = new_world()
    for id, (zone, rack) in TREE.items():
        memory_bytes = room.get(id, 64) * GIB
        world.node(id, labels={"zone": zone, "rack": rack}, memory_bytes=memory_bytes)
    return world


def by_branch(world, depth):
    """Wanted tasks by zone, or by zone and rack."""
    counts: dict[tuple[str, ...], int] = {}
    for id, count in world.spread().items():
        if id:
            branch = TREE[id][:depth]
            counts[branch] = counts.get(branch, 0) + count
    return counts


def even(counts):
    return max(counts) - min(counts) <= 1


def test_services_are_spread_each_and_all_together(new_world):
    """One with more tasks than nodes, then one with fewer: those nodes get them that have the least."""
    world = new_world(nodes=5)
    world.service("many", replicas=18)
    world.settle()
    assert sorted(world.spread("many").values()) == [3, 3, 4, 4, 4]
    emptier = {id for id, count in world.spread("many").items() if count == 3}
    world.service("few", replicas=2)
    world.settle()
    assert set(world.spread("few")) == emptier
    world.service("few", replicas=3)
    world.settle()
    assert sorted(world.spread("few").values()) == [1, 1, 1]


def test_a_node_that_is_lost_is_made_good_for_evenly(new_world):
    world = new_world(nodes=5)
    world.service(replicas=20)
    world.converge()
    world.state("n2", NodeState.DOWN)
    world.converge()
    alive = [world.spread()[id] for id in ("n1", "n3", "n4", "n5")]
    assert alive == [5, 5, 5, 5]


@pytest.mark.parametrize("replicas", [1, 2, 8, 13, 24, 25, 80])
def test_branches_are_even_at_each_level(new_world, replicas):
    """24 is where tasks are shared out at once instead of one by one."""
    world = tree(new_world)
    world.service(replicas=replicas, placement=Placement(preferences=ZONES_THEN_RACKS))
    world.settle()
    zones, racks = by_branch(world, 1), by_branch(world, 2)
    assert even([zones.get((zone,), 0) for zone in ("z1", "z2")])
    for zone in ("z1", "z2"):
        assert even([racks.get((zone, rack), 0) for rack in ("r1", "r2")])
        for rack in ("r1", "r2"):
            assert even([world.spread().get(id, 0) for id, branch in TREE.items() if branch == (zone, rack)])


def test_a_branch_without_room_leaves_its_part_to_its_neighbour(new_world):
    """Rack r2 of z1 holds one task: the zone still gets its half, and r1 of it what r2 could not take."""
    world = tree(new_world, c=1)
    world.service(
        replicas=12, reservations=Resources(memory_bytes=GIB), placement=Placement(preferences=ZONES_THEN_RACKS)
    )
    world.settle()
    assert by_branch(world, 1) == {("z1",): 6, ("z2",): 6}
    assert by_branch(world, 2) == {("z1", "r1"): 5, ("z1", "r2"): 1, ("z2", "r1"): 3, ("z2", "r2"): 3}


def test_a_zone_without_room_leaves_the_rest_to_the_other(new_world):
    world = tree(new_world, a=1, b=1, c=1)
    world.service(
        replicas=30, reservations=Resources(memory_bytes=GIB), placement=Placement(preferences=ZONES_THEN_RACKS)
    )
    world.settle()
    assert by_branch(world, 1) == {("z1",): 3, ("z2",): 27}
    assert even([by_branch(world, 2)["z2", rack] for rack in ("r1", "r2")])


def test_scaling_up_evens_out_what_was_uneven(new_world):
    """The service stood in one rack only when the preference came."""
    world = tree(new_world)
    world.service(replicas=4, placement=Placement(("node.labels.zone==z1", "node.labels.rack==r1")))
    world.converge()
    assert world.spread() == {"a": 2, "b": 2}
    world.service(replicas=16, placement=Placement(preferences=ZONES_THEN_RACKS))
    world.converge()
    assert by_branch(world, 1) == {("z1",): 8, ("z2",): 8}
    assert by_branch(world, 2) == {("z1", "r1"): 4, ("z1", "r2"): 4, ("z2", "r1"): 4, ("z2", "r2"): 4}
    assert (world.spread()["a"], world.spread()["b"]) == (2, 2)


def test_room_comes_before_evenness(new_world):
    """Tasks of a service pile up where the memory is, once the others are full."""
    world = new_world()
    for id, gib in (("n1", 2), ("n2", 3), ("n3", 8)):
        world.node(id, memory_bytes=gib * GIB)
    world.service(replicas=12, reservations=Resources(memory_bytes=GIB))
    world.settle()
    assert world.spread() == {"n1": 2, "n2": 3, "n3": 7}
    world.service("other", replicas=2, reservations=Resources(memory_bytes=GIB))
    world.settle()
    assert world.spread("other") == {"n3": 1, "": 1}


def test_dead_tasks_hold_nothing_but_those_that_only_shall_end_do(new_world):
    world = new_world()
    world.node("n1", memory_bytes=GIB)
    one = {"replicas": 1, "reservations": Resources(memory_bytes=GIB)}
    world.service(**one)
    world.converge()
    (first,) = world.running()
    world.service(**one, force=1)
    world.settle()
    assert [task.status.state for task in world.tasks(wanted=True)] == [TaskState.PENDING]
    world.report(first, TaskState.FAILED)
    world.converge(seconds=10)
    assert world.spread() == {"n1": 1}


def test_host_ports_of_one_protocol_and_number_meet_only_once_on_a_node(new_world):
    world = new_world(nodes=2)
    tcp = Port(target=80, published=58, mode=PublishMode.HOST)
    both = (tcp, Port(target=81, published=59, mode=PublishMode.HOST))
    world.service("one", replicas=1, ports=(tcp,))
    world.settle()
    world.service("both", replicas=2, ports=both)
    world.settle()
    (taken,) = world.spread("one")
    assert world.spread("both") == {"n1" if taken == "n2" else "n2": 1, "": 1}
    world.node("n3")
    world.settle()
    assert set(world.spread("both")) == {"n1", "n2", "n3"} - {taken}


def test_more_per_node_than_the_maximum_waits_for_another_node(new_world):
    world = new_world(nodes=2)
    world.service(replicas=8, placement=Placement(max_per_node=3))
    world.settle()
    assert world.spread() == {"n1": 3, "n2": 3, "": 2}
    world.node("n3")
    world.settle()
    assert world.spread() == {"n1": 3, "n2": 3, "n3": 2}


@pytest.mark.parametrize("replicas", [4, 60])
def test_a_faulty_node_gets_only_what_the_others_have_no_room_for(new_world, replicas):
    world = new_world(task_history=20)
    world.node("bad", memory_bytes=64 * GIB)
    policy = RestartPolicy(condition=RestartCondition.ANY)
    one = {"reservations": Resources(memory_bytes=GIB), "restart": policy}
    world.service(replicas=5, **one)
    world.converge()
    for task in world.running():
        world.report(task, TaskState.FAILED)
    world.node("good", memory_bytes=40 * GIB)
    world.service(replicas=replicas, **one)
    world.settle()
    assert world.spread() == {"good": min(replicas, 40)} | ({"bad": replicas - 40} if replicas > 40 else {})


def test_without_a_ready_node_each_task_says_so_and_the_first_one_gets_them_all(new_world):
    world = new_world()
    world.node("n1", state=NodeState.DOWN)
    world.node("n2", availability=Availability.PAUSE)
    world.service(replicas=3)
    world.settle()
    reasons = {task.status.message for task in world.tasks()}
    assert reasons == {"no suitable node (2 nodes not available for new tasks)"}
    world.state("n1", NodeState.READY)
    world.converge()
    assert world.spread() == {"n1": 3}


def test_a_node_is_found_for_what_could_not_be_placed_when_its_labels_change(new_world):
    world = new_world(nodes=2)
    world.service(replicas=2, placement=Placement(("node.labels.disk==ssd",)))
    world.settle()
    assert world.spread() == {"": 2}
    world.node("n2", labels={"disk": "SSD"})
    world.settle()
    assert world.spread() == {"n2": 2}
