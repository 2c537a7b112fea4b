from ipaddress import IPv4Address, IPv4Network

from shoal.model.base import Meta
from shoal.model.network import Network, NetworkAttachment, NetworkScope, NetworkSpec, Port, PortProtocol, PublishMode
from shoal.model.service import EndpointMode
from shoal.model.task import TaskState


def overlay(world, name, subnet=""):
    spec = NetworkSpec(name=name, driver="overlay", subnet=subnet)
    return world.write(Network(meta=Meta(name), spec=spec, scope=NetworkScope.SWARM))


def network(world, name):
    return world.view.network_named(name)


def test_the_ingress_network_is_the_first(world):
    world.settle()
    ingress = network(world, "ingress")
    assert (ingress.vni, ingress.subnet, ingress.block_prefix) == (4096, "10.0.0.0/16", 26)
    assert ingress.spec.ingress and ingress.scope == NetworkScope.SWARM


def test_networks_get_the_next_free_numbers(world):
    world.settle()
    first, second = overlay(world, "a"), overlay(world, "b")
    world.settle()
    assert [network(world, name).vni for name in "ab"] == [4097, 4098]
    assert [network(world, name).subnet for name in "ab"] == ["10.1.0.0/16", "10.2.0.0/16"]
    world.remove(world.view.networks[first.meta.id])
    overlay(world, "c")
    world.settle()
    assert (network(world, "c").vni, network(world, "c").subnet) == (4097, "10.1.0.0/16")
    assert network(world, "b").subnet == "10.2.0.0/16" and second.meta.id in world.view.networks


def test_a_users_subnet_is_kept_and_the_pool_goes_round_it(world):
    overlay(world, "mine", "10.1.0.0/24")
    overlay(world, "other")
    world.settle()
    assert (network(world, "mine").subnet, network(world, "mine").block_prefix) == ("10.1.0.0/24", 28)
    assert network(world, "other").subnet == "10.2.0.0/16"


def test_the_pool_goes_round_the_hosts_addresses(new_world):
    world = new_world()
    world.node("n1", address="10.0.0.5")
    world.node("n2", address="10.2.255.9")
    overlay(world, "other")
    world.settle()
    assert [network(world, name).subnet for name in ("ingress", "other")] == ["10.1.0.0/16", "10.3.0.0/16"]


def test_no_subnet_is_chosen_before_a_host_has_told_its_address(new_world):
    world = new_world()
    world.node("n1", address="")
    world.settle()
    assert network(world, "ingress").subnet == ""
    world.node("n1", address="10.0.0.5")
    world.settle()
    assert network(world, "ingress").subnet == "10.1.0.0/16"


def test_a_pool_that_is_used_up_is_said_and_healed(new_world):
    world = new_world(nodes=1, address_pool="10.0.0.0/15", address_pool_prefix=16)
    overlay(world, "a")
    world.settle()
    overlay(world, "b")
    world.service(networks=(NetworkAttachment("b"),))
    world.settle()
    (task,) = world.tasks()
    assert task.status.state == TaskState.NEW
    assert "the pool 10.0.0.0/15 in parts of /16 is used up" in task.status.message
    world.remove(network(world, "a"))
    world.converge()
    assert len(world.running()) == 1


def test_a_service_gets_an_address_on_each_of_its_networks(world):
    world.settle()
    overlay(world, "a")
    overlay(world, "b")
    world.service(networks=(NetworkAttachment("a"), NetworkAttachment("b")))
    world.settle()
    service = world.view.services["web"]
    assert [(each.network_id, each.address) for each in service.addresses] == [("a", "10.1.0.1"), ("b", "10.2.0.1")]


def test_a_service_that_publishes_is_on_the_ingress_network(world):
    world.service(ports=(Port(target=80, published=8080),))
    world.settle()
    service = world.view.services["web"]
    assert [each.network_id for each in service.addresses] == [network(world, "ingress").meta.id]
    assert IPv4Address(service.addresses[0].address) in IPv4Network("10.0.0.0/26")


def test_dnsrr_has_no_address(world):
    overlay(world, "a")
    world.service(networks=(NetworkAttachment("a"),), endpoint_mode=EndpointMode.DNSRR)
    world.converge()
    assert world.view.services["web"].addresses == ()
    assert len(world.running()) == 1


def test_addresses_and_ports_stay_over_an_update(world):
    world.service(ports=(Port(target=80),))
    world.converge()
    before = world.view.services["web"]
    world.service(ports=(Port(target=80), Port(target=81)), force=1)
    world.converge()
    after = world.view.services["web"]
    assert before.addresses == after.addresses
    assert before.ports[0] == after.ports[0]
    assert after.ports[1].published == before.ports[0].published + 1


def test_what_an_update_no_longer_asks_for_is_given_back(world):
    overlay(world, "a")
    world.service(ports=(Port(target=80),), networks=(NetworkAttachment("a"),))
    world.converge()
    world.service(replicas=1)
    world.converge()
    service = world.view.services["web"]
    assert (service.ports, service.addresses) == ((), ())
    world.service("other", ports=(Port(target=80),))
    world.converge()
    assert world.view.services["other"].ports[0].published == 30000


def test_dynamic_ports_go_round_what_others_ask_for(world):
    world.service("taken", ports=(Port(target=80, published=30000),))
    world.service("host", ports=(Port(target=80, published=30001, mode=PublishMode.HOST),))
    world.service(ports=(Port(target=80), Port(target=53, protocol=PortProtocol.UDP)))
    world.settle()
    assert [port.published for port in world.view.services["web"].ports] == [30002, 30000]


def test_host_mode_ports_are_left_to_the_host(world):
    world.service(ports=(Port(target=80, mode=PublishMode.HOST),))
    world.converge()
    service = world.view.services["web"]
    assert service.ports == service.spec.ports and service.addresses == ()
    assert len(world.running()) == 1


def test_a_missing_network_is_said(world):
    world.service(networks=(NetworkAttachment("nowhere"),))
    world.settle()
    (task,) = world.tasks()
    assert (task.status.state, task.status.message) == (TaskState.NEW, "network nowhere does not exist")
    overlay(world, "nowhere")
    world.converge()
    assert len(world.running()) == 1


def test_service_addresses_go_on_where_no_node_is(world):
    """More services than the first block has addresses: theirs never meet a node's block."""
    overlay(world, "a", "10.200.0.0/24")
    for number in range(40):
        world.service(f"s{number}", networks=(NetworkAttachment("a"),))
        world.converge()
    addresses = [IPv4Address(service.addresses[0].address) for service in world.view.services.values()]
    assert len(set(addresses)) == 40
    blocks = [IPv4Network(lease.block) for lease in world.view.leases_of_network("a")]
    assert len(blocks) == 3
    assert not any(address in block for address in addresses for block in blocks)
    assert not {IPv4Address("10.200.0.0"), IPv4Address("10.200.0.255")} & set(addresses)


def test_a_thousand_deployments_leak_nothing(new_world):
    world = new_world(nodes=2)
    for _ in range(200):
        service = world.service(replicas=2, ports=(Port(target=80),))
        world.converge()
        assert world.view.services["web"].ports[0].published == 30000
        assert world.view.services["web"].addresses[0].address == "10.0.0.1"
        world.remove(world.view.services[service.meta.id])
        world.converge()
    assert world.view.tasks == {}
