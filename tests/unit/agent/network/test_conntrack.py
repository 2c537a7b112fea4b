import socket
import struct

import pytest

from agent.kernel.netlink import attribute, nested
from agent.network.conntrack import ends

CLIENT, VIP, BACKEND, HOST = (socket.inet_aton(each) for each in ("10.0.1.70", "10.0.1.2", "10.0.1.130", "10.99.0.1"))


def flow(to, answered_by, *, protocol=socket.IPPROTO_UDP, port=53):
    ports = (attribute(2, struct.pack("!H", 40000)), attribute(3, struct.pack("!H", port)))
    original = nested(1, attribute(1, CLIENT), attribute(2, to)) + nested(2, attribute(1, bytes([protocol])), *ports)
    reply = nested(1, attribute(1, answered_by), attribute(2, CLIENT))
    return nested(1, original) + nested(2, reply)


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        (flow(VIP, BACKEND), True),
        (flow(VIP, BACKEND, protocol=socket.IPPROTO_TCP), False),
        (flow(VIP, HOST), False),
        (flow(BACKEND, BACKEND), False),
        (flow(HOST, HOST, port=5353), True),
        (flow(HOST, HOST, port=5354), False),
        (b"", False),
    ],
)
def test_which_flows_end(entry, why):
    """One led to an address that is gone, one that was led nowhere at a port that somebody has now."""
    assert ends(entry, {BACKEND}, {struct.pack("!H", 5353)}) is why
