from ipaddress import IPv4Address, IPv4Network

import msgspec

from agent.network.netlink import Route
from agent.network.sandbox import inside_routes, prefix_of
from agent.network.segment import Segment

BRIDGE = Segment(
    network_id="b",
    name="bridge",
    device="shoal0",
    subnet=IPv4Network("172.17.0.0/16"),
    block=IPv4Network("172.17.0.0/16"),
    gateway=IPv4Address("172.17.0.1"),
)
OVERLAY = Segment(
    network_id="o",
    name="web",
    device="shb1",
    subnet=IPv4Network("10.0.1.0/24"),
    block=IPv4Network("10.0.1.64/26"),
    gateway=IPv4Address("10.0.1.65"),
    tunnel="shx1",
)
DEFAULT = IPv4Network("0.0.0.0/0")


def test_on_a_bridge_everybody_is_a_neighbour():
    assert prefix_of(BRIDGE) == 16
    assert inside_routes(BRIDGE, 2, outward=True) == [Route(DEFAULT, 2, gateway=BRIDGE.gateway)]
    assert inside_routes(msgspec.structs.replace(BRIDGE, internal=True), 2, outward=False) == []


def test_in_an_overlay_everything_goes_through_the_gateway():
    assert prefix_of(OVERLAY) == 32
    assert inside_routes(OVERLAY, 3, outward=False) == [
        Route(IPv4Network("10.0.1.65/32"), 3),
        Route(OVERLAY.subnet, 3, gateway=OVERLAY.gateway),
    ]
    assert inside_routes(OVERLAY, 2, outward=True)[-1] == Route(DEFAULT, 2, gateway=OVERLAY.gateway)
