"""Which address a host tells others."""

from __future__ import annotations

import socket

import pytest

from agent.address import addresses, advertised, check_way, towards
from shoal.errors import InvalidArgument


def test_a_given_address_is_taken_as_it_is() -> None:
    assert advertised("10.1.2.3") == "10.1.2.3"
    assert advertised("", default="10.1.2.3") == "10.1.2.3"
    assert advertised("10.1.2.4", default="10.1.2.3") == "10.1.2.4"


def test_a_link_stands_for_its_address() -> None:
    assert advertised("lo") == "127.0.0.1"


@pytest.mark.parametrize("text", ["nolink0", "10.0.0.256", "::1"])
def test_neither_address_nor_link_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="neither an IPv4 address nor a network interface"):
        advertised(text)


@pytest.mark.parametrize("text", ["0.0.0.0", "224.0.0.1"])
def test_an_address_that_nobody_can_reach_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="not an address that other hosts can reach"):
        advertised(text)


def test_the_only_address_is_chosen_or_the_choice_is_asked_for() -> None:
    found = list(addresses())
    assert all(socket.inet_aton(address) and not address.startswith("127.") for _, address in found)
    if len(found) == 1:
        assert advertised("") == found[0][1]
    else:
        with pytest.raises(InvalidArgument, match=r"could not choose an IP address to advertise.*--advertise-addr"):
            advertised("")


def test_the_way_to_another_host_tells_the_own_address() -> None:
    assert towards("127.0.0.1", 2377) == "127.0.0.1"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_an_address_of_this_host_needs_no_way_to_it() -> None:
    await check_way("127.0.0.1", 1, listen=("127.0.0.1", free_port()))
