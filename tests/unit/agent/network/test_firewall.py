from ipaddress import IPv4Address, IPv4Network

from agent.network import firewall
from agent.network.balance import Balance
from agent.network.firewall import Published
from agent.network.segment import Segment
from shoal.model.network import Port, PortProtocol

BRIDGE = Segment(
    network_id="b",
    name="bridge",
    device="shoal0",
    subnet=IPv4Network("172.17.0.0/16"),
    block=IPv4Network("172.17.0.0/16"),
    gateway=IPv4Address("172.17.0.1"),
    named=False,
)
OVERLAY = Segment(
    network_id="o",
    name="web",
    device="shb4097",
    subnet=IPv4Network("10.0.1.0/24"),
    block=IPv4Network("10.0.1.64/26"),
    gateway=IPv4Address("10.0.1.65"),
    tunnel="shx4097",
)
VAULT = Segment(
    network_id="v",
    name="vault",
    device="shl123",
    subnet=IPv4Network("172.18.0.0/16"),
    block=IPv4Network("172.18.0.0/16"),
    gateway=IPv4Address("172.18.0.1"),
    internal=True,
)


def text(*segments):
    return firewall.ruleset(segments, (), Balance())


def test_the_whole_table_is_replaced_in_one_go():
    assert text(BRIDGE).startswith("table ip shoal\ndelete table ip shoal\ntable ip shoal {\n")


def test_sets_name_every_device_and_which_belong_together():
    ruleset = text(BRIDGE, OVERLAY, VAULT)
    assert 'set ours { type ifname; elements = { "shoal0", "shb4097", "shx4097", "shl123" }; }' in ruleset
    assert '"shb4097" . "shx4097"' in ruleset
    assert '"shoal0" . "shb4097"' not in ruleset
    assert 'set internal { type ifname; elements = { "shl123" }; }' in ruleset
    assert "set gateways { type ipv4_addr; elements = { 10.0.1.65, 172.18.0.1 }; }" in ruleset


def test_masquerade_per_kind_of_network():
    ruleset = text(BRIDGE, OVERLAY, VAULT)
    assert 'ip saddr 172.17.0.0/16 oifname != "shoal0" masquerade' in ruleset
    assert "ct status dnat ip saddr 172.17.0.0/16 ip daddr 172.17.0.0/16 masquerade" in ruleset
    assert 'ip saddr 10.0.1.0/24 oifname != { "shb4097", "shx4097" } masquerade' in ruleset
    assert 'ip saddr != 10.0.1.0/24 oifname "shx4097" masquerade' in ruleset
    assert "172.18.0.0/16" not in ruleset, "an internal network is hidden behind nothing"


def test_published_ports_are_elements():
    tcp = Published(Port(target=80, published=8080), "172.17.0.2")
    udp = Published(Port(protocol=PortProtocol.UDP, target=53, published=5353, host_address="127.0.0.1"), "172.17.0.3")
    assert firewall.publish([tcp]) == "add element ip shoal published { tcp . 8080 : 172.17.0.2 . 80 }\n"
    assert firewall.unpublish([udp]) == (
        "delete element ip shoal published_at { 127.0.0.1 . udp . 5353 : 172.17.0.3 . 53 }\n"
    )
    assert firewall.publish([tcp]) in firewall.ruleset((BRIDGE,), [tcp], Balance())


def test_iptables_is_told_once_to_let_our_devices_through():
    commands = firewall.admission("chain FORWARD {\n  policy drop;\n}")
    assert 'iifname "shl*" accept' in commands
    assert commands.endswith("insert rule ip filter FORWARD jump SHOAL-FORWARD\n")
    assert firewall.admission("chain FORWARD {\n  jump SHOAL-FORWARD\n}") == ""
