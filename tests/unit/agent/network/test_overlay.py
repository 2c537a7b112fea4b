from ipaddress import IPv4Address, IPv4Network

import pytest

from agent.network import overlay
from agent.network.netlink import Forward, Neighbour, Route
from shoal.errors import InvalidArgument
from shoal.model.assignment import NetworkAssignment, NetworkPeer
from shoal.model.base import Meta
from shoal.model.network import Network, NetworkSpec


def assignment(block="10.0.1.64/26", vni=4097, peers=(), subnet="10.0.1.0/24"):
    network = Network(meta=Meta(id="id1"), spec=NetworkSpec(name="web", driver="overlay"), subnet=subnet, vni=vni)
    return NetworkAssignment(network=network, block=block, peers=tuple(peers))


PEER = NetworkPeer(node_id="n2", address="192.0.2.2", block="10.0.1.128/26")


def test_a_segment_follows_from_the_block():
    segment = overlay.segment_of(assignment(), 1500)
    assert (segment.device, segment.tunnel) == ("shb4097", "shx4097")
    assert segment.gateway == IPv4Address("10.0.1.65")
    assert segment.mtu == 1450


def test_three_entries_per_peer_and_none_per_container():
    ours = assignment(peers=[PEER])
    segment = overlay.segment_of(ours, 1500)
    start = IPv4Address("10.0.1.128")
    assert overlay.routes(ours, segment, bridge=5, tunnel=6) == {
        Route(IPv4Network("10.0.1.0/24")),
        Route(IPv4Network("10.0.1.64/26"), 5, source=IPv4Address("10.0.1.65")),
        Route(IPv4Network("10.0.1.128/26"), 6, gateway=start, on_link=True),
    }
    assert overlay.neighbours(ours, 6) == {Neighbour(6, start, "02:42:0a:00:01:80")}
    assert overlay.forwards(ours, 6) == {Forward(6, "02:42:0a:00:01:80", IPv4Address("192.0.2.2"))}


@pytest.mark.parametrize(
    "wrong",
    [
        {"block": "10.0.2.64/26"},
        {"block": "10.0.1.64/31"},
        {"block": ""},
        {"block": "10.0.1.1/26"},
        {"vni": 0},
        {"vni": 1 << 24},
        {"subnet": "fd00::/64"},
    ],
)
def test_what_cannot_be_a_network_is_named(wrong):
    with pytest.raises(InvalidArgument, match="network web: "):
        overlay.segment_of(assignment(**wrong), 1500)


def test_a_peer_that_no_tunnel_leads_to_is_left_out():
    bad = NetworkPeer(node_id="n3", address="fd00::3", block="10.0.1.192/26")
    left, wrong = overlay.reachable_peers(assignment(peers=[bad, PEER]))
    assert left.peers == (PEER,)
    assert "node n3 at fd00::3 is not reached" in str(wrong)
    assert overlay.reachable_peers(left) == (left, None)


def test_a_block_that_is_the_whole_subnet_leaves_nothing_unreachable():
    ours = assignment(block="10.0.1.0/24")
    routes = overlay.routes(ours, overlay.segment_of(ours, 1500), bridge=5, tunnel=6)
    assert [route.device for route in routes] == [5]


def test_mtu_is_that_of_the_way_to_the_peers():
    near = NetworkPeer(node_id="n2", address="127.0.0.1", block="10.0.1.128/26")
    assert overlay.underlay_mtu([assignment(peers=[near])], 1400) == 65535
    assert overlay.underlay_mtu([assignment()], 1400) == 1400
