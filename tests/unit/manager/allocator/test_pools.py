"""The parts that `plan` puts together: numbers, subnets, ports."""

from ipaddress import IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manager.allocator import port, subnet, vip, vni
from shoal.errors import Exhausted, InvalidArgument
from shoal.model.base import Meta
from shoal.model.network import Lease, Network, NetworkSpec, Port, PortProtocol, PublishMode
from shoal.model.node import Node, NodeDescription
from shoal.model.service import Service, ServiceSpec


def service(name, *ports):
    return Service(Meta(name), ServiceSpec(name=name, ports=ports))


def test_numbers_begin_where_swarms_do():
    assert next(vni.free(())) == 4096
    assert next(vni.free({4096, 4098})) == 4097


@pytest.mark.parametrize(
    ("wanted", "prefix"),
    [("10.0.0.0/16", 26), ("10.0.0.0/8", 26), ("10.0.0.0/22", 26), ("10.0.0.0/24", 28), ("10.0.0.0/28", 29)],
)
def test_subnets_are_cut_by_their_size(wanted, prefix):
    assert subnet.block_prefix(wanted) == prefix


@pytest.mark.parametrize("wrong", ["10.0.0.1/16", "10.0.0.0/30", "fd00::/64", "ten", "", "10.0.0.0/33"])
def test_subnets_that_no_overlay_can_live_in(wrong):
    with pytest.raises(InvalidArgument):
        subnet.parse(wrong)


def test_an_overlap_names_the_network():
    networks = [Network(spec=NetworkSpec(name="ingress"), subnet="10.0.0.0/16"), Network(spec=NetworkSpec(name="x"))]
    found = subnet.overlap(networks, "10.0.128.0/20")
    assert found is not None and found.spec.name == "ingress"
    assert subnet.overlap(networks, "10.1.0.0/16") is None


def test_a_subnet_with_a_hosts_address_names_the_host():
    nodes = [
        Node(description=NodeDescription(hostname=name, address=at)) for name, at in (("n1", ""), ("n2", "10.0.0.5"))
    ]
    found = subnet.host_inside(nodes, "10.0.0.0/16")
    assert found is not None and found.description.hostname == "n2"
    assert subnet.host_inside(nodes, "10.1.0.0/16") is None


@given(st.lists(st.integers(0, 63), max_size=40), st.booleans())
def test_gaps_are_free_aligned_and_all_there(numbers, from_the_end):
    whole = IPv4Network("10.0.0.0/22")
    parts = list(whole.subnets(new_prefix=28))
    taken = [parts[number] for number in numbers]
    found = list(subnet.gaps(whole, 26, taken, from_the_end=from_the_end))
    free = [each for each in whole.subnets(new_prefix=26) if not any(each.overlaps(other) for other in taken)]
    assert found == (free[::-1] if from_the_end else free)


def test_a_pool_that_is_full_has_none():
    assert list(subnet.free("10.0.0.0/15", 16, ["10.0.0.0/16", "10.1.0.0/24"])) == []


def test_service_addresses_fill_the_first_block_then_free_ones_from_the_end():
    network = Network(Meta("n"), subnet="10.0.0.0/26", block_prefix=28)
    leases = [Lease(block="10.0.0.48/28")]
    found = list(vip.free(network, {"10.0.0.1"}, leases))
    assert found[0] == "10.0.0.2" and "10.0.0.0" not in found
    assert found[14] == "10.0.0.32"
    assert not any(address in {f"10.0.0.{last}" for last in range(48, 64)} for address in found)


def test_two_services_cannot_have_one_ingress_port():
    mine = Port(target=80, published=8080)
    theirs = service("theirs", mine)
    assert port.conflict([theirs], ServiceSpec(name="mine", ports=(mine,))) is theirs
    assert port.conflict([theirs], ServiceSpec(name="theirs", ports=(mine,))) is None
    assert port.conflict([theirs], ServiceSpec(name="mine", ports=(Port(target=80),))) is None
    udp = Port(PortProtocol.UDP, 80, 8080)
    assert port.conflict([theirs], ServiceSpec(name="mine", ports=(udp,))) is None


def test_an_ingress_port_is_taken_on_every_host():
    ingress, host = Port(target=80, published=8080), Port(target=80, published=8080, mode=PublishMode.HOST)
    assert port.conflict([service("a", ingress)], ServiceSpec(name="b", ports=(host,)))
    assert port.conflict([service("a", host)], ServiceSpec(name="b", ports=(ingress,)))
    assert port.conflict([service("a", host)], ServiceSpec(name="b", ports=(host,))) is None


def test_when_all_dynamic_ports_are_taken():
    taken = {(PortProtocol.TCP, number) for number in port.DYNAMIC}
    with pytest.raises(Exhausted, match="30000 to 32767"):
        port.allocate(service("a", Port(target=80)), taken)
