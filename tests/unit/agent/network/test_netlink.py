"""The messages themselves are proven against the kernel in tests/kernel; here what is computed on the way."""

from ipaddress import IPv4Address

from hypothesis import given
from hypothesis import strategies as st

from agent.kernel import netlink as raw
from agent.network import netlink


def test_mac_follows_from_the_address():
    assert netlink.mac_of(IPv4Address("10.0.1.128")) == "02:42:0a:00:01:80"


@given(st.dictionaries(st.integers(1, 0x3FFF), st.binary(max_size=20), max_size=8))
def test_attributes_come_back(wanted):
    data = b"".join(raw.attribute(kind, payload) for kind, payload in wanted.items())
    assert len(data) % 4 == 0
    assert raw.attributes(data) == wanted


def test_nested_attributes_come_back():
    data = raw.nested(18, raw.text(1, "veth"), raw.u32(4, 1450))
    inner = raw.attributes(raw.attributes(data)[18])
    assert inner == {1: b"veth\0", 4: (1450).to_bytes(4, "little")}


@given(st.binary(max_size=64))
def test_garbage_ends_the_reading_and_nothing_else(data):
    raw.attributes(data)
