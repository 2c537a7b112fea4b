from ipaddress import IPv4Network

from shoal.model.base import Meta
from shoal.model.network import Network, NetworkAttachment, NetworkScope, NetworkSpec, Port
from shoal.model.node import NodeState
from shoal.model.service import Placement


def overlay(world, name, subnet=""):
    spec = NetworkSpec(name=name, driver="overlay", subnet=subnet)
    return world.write(Network(meta=Meta(name), spec=spec, scope=NetworkScope.SWARM))


def blocks(world, network):
    return {lease.node_id: lease.block for lease in world.view.leases_of_network(network)}


def test_a_node_leases_a_block_when_it_is_sent_a_task(world):
    overlay(world, "a")
    world.service(networks=(NetworkAttachment("a"),), placement=Placement(("node.id==n2",)))
    world.settle()
    assert set(blocks(world, "a")) == {"n2"}
    assert "a.n2" in world.view.leases


def test_every_ready_node_is_on_the_ingress_network_once_something_is_published(world):
    world.node("n4", state=NodeState.DOWN)
    world.settle()
    assert not world.view.leases
    service = world.service(ports=(Port(target=80),))
    world.settle()
    ingress = world.view.network_named("ingress")
    assert set(blocks(world, ingress.meta.id)) == {"n1", "n2", "n3"}
    world.state("n4", NodeState.READY)
    world.settle()
    assert set(blocks(world, ingress.meta.id)) == {"n1", "n2", "n3", "n4"}
    world.remove(service)
    world.converge()
    assert set(blocks(world, ingress.meta.id)) == {"n1", "n2", "n3", "n4"}


def test_a_node_that_goes_down_keeps_its_blocks(world):
    overlay(world, "a")
    world.service(replicas=3, networks=(NetworkAttachment("a"),))
    world.converge()
    before = blocks(world, "a")
    world.state("n1", NodeState.DOWN)
    world.converge()
    assert blocks(world, "a") == before


def test_a_removed_node_gives_its_blocks_back(world):
    overlay(world, "a")
    world.service(replicas=3, networks=(NetworkAttachment("a"),))
    world.converge()
    gone = blocks(world, "a")["n1"]
    world.remove(world.view.nodes["n1"])
    world.converge()
    assert all("n1" not in lease.meta.id for lease in world.view.leases.values())
    world.node("n4")
    world.service(replicas=4, networks=(NetworkAttachment("a"),))
    world.converge()
    assert blocks(world, "a")["n4"] == gone


def test_blocks_go_back_when_the_last_task_is_forgotten(world):
    overlay(world, "a")
    service = world.service(replicas=3, networks=(NetworkAttachment("a"),))
    world.converge()
    world.remove(world.view.services[service.meta.id])
    world.settle()
    assert len(blocks(world, "a")) == 3  # its tasks still hold addresses
    world.converge()
    assert blocks(world, "a") == {}


def test_blocks_go_with_their_network(world):
    overlay(world, "a")
    service = world.service(replicas=1, networks=(NetworkAttachment("a"),))
    world.converge()
    world.remove(world.view.services[service.meta.id])
    world.remove(world.view.networks["a"])
    world.converge()
    assert blocks(world, "a") == {}


def test_blocks_never_overlap_and_leave_the_services_block(new_world):
    world = new_world(nodes=40)
    overlay(world, "a", "10.50.0.0/20")
    world.service(replicas=40, networks=(NetworkAttachment("a"),))
    world.settle()
    found = [IPv4Network(block) for block in blocks(world, "a").values()]
    assert len(found) == 40
    assert all(not one.overlaps(other) for one in found for other in found if one is not other)
    assert all(not each.overlaps(IPv4Network("10.50.0.0/26")) for each in found)
    assert all(each.subnet_of(IPv4Network("10.50.0.0/20")) for each in found)


def test_a_large_network_gives_wide_blocks_to_few_and_narrow_ones_to_many(new_world):
    world = new_world(nodes=300)
    world.service(ports=(Port(target=80),))
    world.settle()
    ingress = world.view.network_named("ingress")
    sizes = [IPv4Network(block).prefixlen for block in blocks(world, ingress.meta.id).values()]
    assert len(sizes) == 300
    assert sizes.count(24) > 100 and sizes.count(26) > 100
