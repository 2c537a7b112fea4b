from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.network.ipam import Pool, bridge_subnets, free_subnet, next_address
from shoal.errors import Exhausted

BLOCK = IPv4Network("10.0.1.64/29")  # .65 … .70 can be given
GATEWAY = IPv4Address("10.0.1.65")


def pool():
    return Pool("web", BLOCK, (GATEWAY, BLOCK.network_address))


def test_addresses_come_in_order_and_round():
    ours = pool()
    first = [str(ours.take()) for _ in range(3)]
    assert first == ["10.0.1.66", "10.0.1.67", "10.0.1.68"]
    ours.release(IPv4Address("10.0.1.66"))
    assert [str(ours.take()) for _ in range(3)] == ["10.0.1.69", "10.0.1.70", "10.0.1.66"]


def test_a_full_pool_says_which_network_and_how_full():
    ours = pool()
    for _ in range(5):
        ours.take()
    with pytest.raises(Exhausted, match=r"network web: no free address in 10\.0\.1\.64/29, 5 are in use"):
        ours.take()
    assert len(ours.taken) == 5


def test_held_addresses_are_not_given_and_go_on_from_there():
    ours = pool()
    ours.hold(IPv4Address("10.0.1.68"))
    ours.hold(IPv4Address("192.0.2.1"))
    assert str(ours.take()) == "10.0.1.69"


@given(st.lists(st.one_of(st.just(-1), st.integers(0, 9)), max_size=60))
def test_no_address_is_ever_given_twice(steps):
    """-1 takes; n gives back the n-th held."""
    ours = pool()
    held = []
    for step in steps:
        if step < 0:
            try:
                address = ours.take()
            except Exhausted:
                assert len(held) == 5
                continue
            assert address in BLOCK
            assert address not in held
            assert address not in (GATEWAY, BLOCK.network_address, BLOCK.broadcast_address)
            held.append(address)
        elif held:
            ours.release(held.pop(step % len(held)))
    assert ours.taken == set(held)


@given(st.integers(24, 30), st.data())
def test_next_address_finds_one_whenever_there_is_one(prefix, data):
    block = IPv4Network(f"10.1.0.0/{prefix}")
    usable = list(block.hosts())
    taken = data.draw(st.sets(st.sampled_from(usable)))
    after = data.draw(st.sampled_from(list(block)))
    found = next_address(block, taken, after)
    free = [address for address in usable if address not in taken]
    later = [address for address in free if address > after]
    assert found == (later or free or [None])[0]


def test_subnets_are_dockers_in_dockers_order():
    subnets = list(bridge_subnets())
    assert [str(subnets[0]), str(subnets[14]), str(subnets[15]), str(subnets[-1])] == [
        "172.17.0.0/16",
        "172.31.0.0/16",
        "192.168.0.0/20",
        "192.168.240.0/20",
    ]


def test_free_subnet_overlaps_nothing_and_ignores_default_routes():
    used = [IPv4Network("0.0.0.0/0"), IPv4Network("172.17.5.0/24"), IPv4Network("172.18.0.0/15")]
    assert str(free_subnet(used)) == "172.20.0.0/16"
    with pytest.raises(Exhausted, match="non-overlapping IPv4 address pool"):
        free_subnet([IPv4Network("172.16.0.0/12"), IPv4Network("192.168.0.0/16")])
