import pytest

from shoal.model.base import Resources
from shoal.model.network import Network, NetworkAttachment, NetworkScope, NetworkSpec, Port, PublishMode
from shoal.model.node import Availability, NodeState
from shoal.model.service import Placement
from shoal.model.task import TaskState

GIB = 1 << 30
CPU = 10**9
SECOND = 1_000_000_000


def message(world, service="web"):
    """What the tasks that wait are told; the same for all."""
    (text,) = {task.status.message for task in world.tasks(service) if task.status.state == TaskState.PENDING}
    return text


def test_tasks_spread_evenly(world):
    world.service(replicas=7)
    world.settle()
    assert sorted(world.spread().values()) == [2, 2, 3]


def test_a_service_spreads_before_nodes_even_out(world):
    world.service("many", replicas=30, placement=Placement(("node.id==n1",)))
    world.settle()
    world.service(replicas=3)
    world.settle()
    assert world.spread() == {"n1": 1, "n2": 1, "n3": 1}


def test_of_equal_nodes_the_emptier_one_is_taken(world):
    world.service("other", replicas=2)
    world.settle()
    world.service(replicas=1)
    world.settle()
    assert world.spread() == {"n3": 1}


def test_a_later_top_up_evens_out(world):
    world.service(replicas=3)
    world.converge()
    world.node("n4")
    world.service(replicas=8)
    world.converge()
    assert world.spread() == {"n1": 2, "n2": 2, "n3": 2, "n4": 2}


@pytest.mark.parametrize(
    ("resources", "word"),
    [(Resources(memory_bytes=GIB), "memory"), (Resources(nano_cpus=int(1e9)), "CPU"), (Resources(pids=100), "pids")],
)
def test_reservations_fill_nodes_to_their_limit(new_world, resources, word):
    world = new_world()
    for name in ("n1", "n2"):
        node = world.node(name)
        room = Resources(nano_cpus=int(2e9), memory_bytes=2 * GIB, pids=200)
        about = type(node.description)(hostname=name, resources=room)
        world.write(type(node)(node.meta, node.spec, about, node.status))
    world.service(replicas=5, reservations=resources)
    world.settle()
    assert {node: count for node, count in world.spread().items() if node} == {"n1": 2, "n2": 2}
    assert message(world) == f"no suitable node (insufficient resources on 2 nodes): too little {word}"


def test_ended_tasks_free_what_they_reserved(new_world):
    world = new_world()
    world.node("n1", memory_bytes=GIB)
    world.service("old", replicas=1, reservations=Resources(memory_bytes=GIB))
    world.converge()
    world.service(replicas=1, reservations=Resources(memory_bytes=GIB))
    world.converge()
    assert message(world) == "no suitable node (insufficient resources on 1 node): too little memory"
    world.remove(world.view.services["old"])
    world.settle()
    assert world.running() == []  # it was told to end, and has not yet
    world.converge()
    assert len(world.running()) == 1


def test_every_filter_explains_itself(new_world):
    world = new_world()
    world.node("small", memory_bytes=1)
    world.node("tiny", memory_bytes=2)
    world.node("elsewhere", labels={"zone": "b"})
    world.node("gone", state=NodeState.DOWN)
    world.node("drained", availability=Availability.DRAIN)
    for name in ("small", "tiny"):
        world.write(_labelled(world.view.nodes[name], zone="a"))
    world.service(placement=Placement(("node.labels.zone==a",)), reservations=Resources(memory_bytes=GIB))
    world.settle()
    assert message(world) == (
        "no suitable node (2 nodes not available for new tasks; insufficient resources on 2 nodes; "
        "scheduling constraints not satisfied on 1 node): too little memory"
    )


def test_what_a_node_has_too_little_of_is_named(new_world):
    world = new_world()
    world.node("small", cpus=8, memory_bytes=1)
    world.node("slow", cpus=1, memory_bytes=4 * GIB)
    world.service(reservations=Resources(nano_cpus=int(2e9), memory_bytes=GIB))
    world.settle()
    assert message(world) == "no suitable node (insufficient resources on 2 nodes): too little CPU, memory"


def test_a_reason_holds_after_what_else_was_placed(world):
    """What is decided later in the same plan fills the node that the first one looked at."""
    world.service("first", placement=Placement(("node.labels.no==where",)), reservations=Resources(nano_cpus=CPU))
    world.service("later", replicas=3, reservations=Resources(nano_cpus=64 * CPU))
    world.settle()
    assert message(world, "first") == "no suitable node (insufficient resources on 3 nodes): too little CPU"
    world.converge()


def test_a_task_keeps_what_was_reserved_for_it_whatever_its_service_asks_for_since(new_world):
    world = new_world()
    world.node("n1", memory_bytes=4 * GIB)
    for number, gib in enumerate((3, 1, 1)):
        # The node's agent is slow: the first task runs on while its service is updated twice.
        world.service(replicas=1, reservations=Resources(memory_bytes=gib * GIB), force=number)
        world.settle()
    world.service("other", replicas=1, reservations=Resources(memory_bytes=2 * GIB))
    world.settle()
    assert message(world, "other") == "no suitable node (insufficient resources on 1 node): too little memory"
    world.converge()
    assert len(world.running("other")) == len(world.running()) == 1


def test_a_task_keeps_its_host_port_while_its_service_moves_to_another(world):
    def port(number):
        return Port(target=80, published=number, mode=PublishMode.HOST)

    world.service(replicas=3, ports=(port(8080),))
    world.converge()
    world.service(replicas=3, ports=(port(8081),), force=1)
    world.settle()
    world.service("other", replicas=1, ports=(port(8080),))
    world.settle()
    assert message(world, "other") == "no suitable node (host-mode port already in use on 3 nodes)"
    world.converge()
    assert len(world.running("other")) == 1


def test_without_nodes_it_says_so_and_waits(new_world):
    world = new_world()
    world.service(replicas=2)
    world.settle()
    assert message(world) == "no suitable node (the cluster has no node)"
    world.node("n1")
    world.converge()
    assert len(world.running()) == 2


def test_the_reason_is_written_only_when_it_changes(new_world):
    world = new_world()
    world.node("n1", availability=Availability.PAUSE)
    world.service(replicas=1)
    world.settle()
    revision = world.view.tasks_of_service("web")[0].meta.version
    world.node("n1", availability=Availability.PAUSE, labels={"x": "y"})
    world.settle()
    assert world.view.tasks_of_service("web")[0].meta.version == revision


def test_host_mode_ports_are_one_per_node(world):
    port = Port(target=80, published=8080, mode=PublishMode.HOST)
    world.service(replicas=4, ports=(port,))
    world.settle()
    assert {node: count for node, count in world.spread().items() if node} == {"n1": 1, "n2": 1, "n3": 1}
    assert message(world) == "no suitable node (host-mode port already in use on 3 nodes)"
    world.service("other", replicas=1, ports=(port,))
    world.settle()
    assert message(world, "other") == "no suitable node (host-mode port already in use on 3 nodes)"


def test_no_more_than_max_per_node(world):
    world.service(replicas=7, placement=Placement(max_per_node=2))
    world.settle()
    assert {node: count for node, count in world.spread().items() if node} == {"n1": 2, "n2": 2, "n3": 2}
    assert message(world) == "no suitable node (max replicas per node limit exceeded on 3 nodes)"


def test_no_more_than_the_network_has_addresses(new_world):
    world = new_world(nodes=3)
    network = Network(spec=NetworkSpec("tight", "overlay", subnet="10.9.0.0/28"), scope=NetworkScope.SWARM)
    world.write(type(network)(type(network.meta)("tight"), network.spec, network.scope))
    world.service(replicas=7, networks=(NetworkAttachment("tight"),))
    world.converge()
    assert sum(count for node, count in world.spread().items() if node) == 5  # of two /29, one is for services
    assert message(world) == "no suitable node (no free address of network tight on 3 nodes)"
    assert len(world.view.leases_of_network("tight")) == 1


def test_spread_evens_out_branches_before_nodes(new_world):
    world = new_world()
    world.node("a1", labels={"zone": "a"})
    for number in range(1, 4):
        world.node(f"b{number}", labels={"zone": "b"})
    world.service(replicas=6, placement=Placement(preferences=("spread=node.labels.zone",)))
    world.settle()
    assert world.spread() == {"a1": 3, "b1": 1, "b2": 1, "b3": 1}


def test_nodes_without_the_label_are_one_branch(new_world):
    world = new_world(nodes=2)
    world.node("a1", labels={"zone": "a"})
    world.service(replicas=4, placement=Placement(preferences=("spread=node.labels.zone",)))
    world.settle()
    assert world.spread() == {"a1": 2, "n1": 1, "n2": 1}


def test_preferences_nest(new_world):
    world = new_world()
    for name, zone, rack in (("a1", "a", "1"), ("a2", "a", "2"), ("a3", "a", "2"), ("b1", "b", "1")):
        world.node(name, labels={"zone": zone, "rack": rack})
    preferences = ("spread=node.labels.zone", "spread=node.labels.rack")
    world.service(replicas=8, placement=Placement(preferences=preferences))
    world.settle()
    assert world.spread() == {"a1": 2, "a2": 1, "a3": 1, "b1": 4}


def test_a_branch_that_is_full_gives_way(new_world):
    world = new_world()
    world.node("a1", labels={"zone": "a"}, memory_bytes=GIB)
    world.node("b1", labels={"zone": "b"})
    world.service(
        replicas=4,
        reservations=Resources(memory_bytes=GIB),
        placement=Placement(preferences=("spread=node.labels.zone",)),
    )
    world.settle()
    assert world.spread() == {"a1": 1, "b1": 3}


def test_an_unassignable_service_does_not_hold_up_others(world):
    world.service("stuck", replicas=50, placement=Placement(("node.labels.no==where",)))
    world.service(replicas=3)
    world.converge()
    assert len(world.running()) == 3


def _labelled(node, **labels):
    return type(node)(node.meta, type(node.spec)(node.spec.role, node.spec.availability, labels), *_rest(node))


def _rest(node):
    return node.description, node.status
