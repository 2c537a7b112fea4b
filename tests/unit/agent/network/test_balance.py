from ipaddress import IPv4Address, IPv4Network

import pytest

from agent.network import balance
from agent.network.balance import balance_of
from agent.network.segment import Segment
from shoal.errors import InvalidArgument
from shoal.model.network import Backend, Endpoint, Port, PortProtocol, PublishMode

SEGMENT = Segment(
    network_id="net1",
    name="web",
    device="shb4097",
    subnet=IPv4Network("10.0.1.0/24"),
    block=IPv4Network("10.0.1.64/26"),
    gateway=IPv4Address("10.0.1.65"),
    tunnel="shx4097",
)
PORT = Port(target=80, published=8080)


def endpoint(*addresses, vip="10.0.1.2", ports=(), network_id="net1", service="shop"):
    backends = tuple(
        Backend(task_id=f"t{slot}", node_id="n", slot=slot, address=address)
        for slot, address in enumerate(addresses, 1)
    )
    return Endpoint(
        service_id=service, service_name=service, network_id=network_id, address=vip, ports=ports, backends=backends
    )


def test_vip_goes_round_its_backends():
    found = balance_of([endpoint("10.0.1.66", "10.0.1.130")], [SEGMENT])
    entry = found.entries["vip-shb4097-10.0.1.2"]
    assert entry.key == '"shb4097" . 10.0.1.2'
    assert entry.rule == "dnat ip to numgen inc mod 2 map { 0 : 10.0.1.66, 1 : 10.0.1.130 }"
    assert found.hairpin == {IPv4Address("10.0.1.66")}, "only who is here can meet itself here"


def test_mesh_port_goes_round_with_the_target_port():
    found = balance_of([endpoint("10.0.1.66", "10.0.1.130", ports=(PORT,))], [SEGMENT])
    entry = found.entries["mesh-tcp-8080"]
    assert (entry.map, entry.key) == ("mesh", "tcp . 8080")
    assert entry.rule == (
        "meta l4proto tcp dnat ip addr . port to numgen inc mod 2 map { 0 : 10.0.1.66 . 80, 1 : 10.0.1.130 . 80 }"
    )


def test_one_backend_needs_no_choice():
    found = balance_of([endpoint("10.0.1.66", ports=(PORT,))], [SEGMENT])
    assert found.entries["vip-shb4097-10.0.1.2"].rule == "dnat ip to 10.0.1.66"
    assert found.entries["mesh-tcp-8080"].rule == "meta l4proto tcp dnat ip to 10.0.1.66:80"


def test_order_of_backends_does_not_matter():
    one = endpoint("10.0.1.66", "10.0.1.130")
    other = Endpoint(**{**{f: getattr(one, f) for f in one.__struct_fields__}, "backends": one.backends[::-1]})
    assert balance_of([one], [SEGMENT]) == balance_of([other], [SEGMENT])


def test_nobody_to_answer_nothing_to_balance():
    assert balance_of([endpoint(ports=(PORT,))], [SEGMENT]) == balance.Balance()
    assert balance_of([endpoint("10.0.1.66", network_id="elsewhere")], [SEGMENT]) == balance.Balance()


def test_dnsrr_has_no_vip():
    assert list(balance_of([endpoint("10.0.1.66", vip="", ports=(PORT,))], [SEGMENT]).entries) == ["mesh-tcp-8080"]


def test_host_mode_ports_are_not_the_meshs():
    host = Port(target=80, published=8080, mode=PublishMode.HOST)
    one = endpoint("10.0.1.66", ports=(host,))
    assert "mesh-tcp-8080" not in balance_of([one], [SEGMENT]).entries
    assert balance.mesh_ports([one]) == frozenset()
    assert balance.mesh_ports([endpoint(ports=(PORT,))]) == {(PortProtocol.TCP, 8080)}


def test_a_port_of_two_endpoints_goes_to_the_ingress_network():
    other = Segment(
        network_id="net0",
        name="ingress",
        device="shb4096",
        subnet=IPv4Network("10.0.0.0/24"),
        block=IPv4Network("10.0.0.64/26"),
        gateway=IPv4Address("10.0.0.65"),
        tunnel="shx4096",
    )
    both = [endpoint("10.0.1.66", ports=(PORT,)), endpoint("10.0.0.66", vip="", ports=(PORT,), network_id="net0")]
    assert "10.0.0.66" in balance_of(both, [SEGMENT, other]).entries["mesh-tcp-8080"].rule
    assert "10.0.1.66" in balance_of(both, [SEGMENT, other], ["net1"]).entries["mesh-tcp-8080"].rule


def test_what_is_no_address_never_reaches_the_firewall():
    for bad in (endpoint("10.0.1.66 }; flush ruleset"), endpoint("10.0.1.66", vip="x")):
        with pytest.raises(InvalidArgument, match="service shop: the manager sent address"):
            balance_of([bad], [SEGMENT])
        with pytest.raises(InvalidArgument, match="service shop: the manager sent address"):
            balance.addresses([bad])
    assert balance.addresses([endpoint("10.0.1.66", "")]) == {IPv4Address("10.0.1.66")}


def test_delta_touches_only_what_changed():
    other = endpoint("10.0.1.67", vip="10.0.1.3", service="z")
    before = balance_of([endpoint("10.0.1.66", ports=(PORT,)), other], [SEGMENT])
    after = balance_of([endpoint("10.0.1.130"), other], [SEGMENT])
    assert balance.delta(before, after) == (
        "delete element ip shoal hairpin { 10.0.1.66 . 10.0.1.66 }\n"
        "delete element ip shoal mesh { tcp . 8080 }\n"
        "flush chain ip shoal mesh-tcp-8080\n"
        "delete chain ip shoal mesh-tcp-8080\n"
        "flush chain ip shoal vip-shb4097-10.0.1.2\n"
        "add rule ip shoal vip-shb4097-10.0.1.2 dnat ip to 10.0.1.130\n"
    )
    assert balance.delta(after, after) == ""
    assert balance.delta(balance.Balance(), before) == "".join(
        [
            "add element ip shoal hairpin { 10.0.1.66 . 10.0.1.66, 10.0.1.67 . 10.0.1.67 }\n",
            "add chain ip shoal mesh-tcp-8080\n",
            "add rule ip shoal mesh-tcp-8080 meta l4proto tcp dnat ip to 10.0.1.66:80\n",
            "add element ip shoal mesh { tcp . 8080 : goto mesh-tcp-8080 }\n",
            "add chain ip shoal vip-shb4097-10.0.1.2\n",
            "add rule ip shoal vip-shb4097-10.0.1.2 dnat ip to 10.0.1.66\n",
            'add element ip shoal vips { "shb4097" . 10.0.1.2 : goto vip-shb4097-10.0.1.2 }\n',
            "add chain ip shoal vip-shb4097-10.0.1.3\n",
            "add rule ip shoal vip-shb4097-10.0.1.3 dnat ip to 10.0.1.67\n",
            'add element ip shoal vips { "shb4097" . 10.0.1.3 : goto vip-shb4097-10.0.1.3 }\n',
        ]
    )
