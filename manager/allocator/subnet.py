"""Subnets and their blocks: which part of an address pool a network gets, and how it is cut.

A network's subnet is cut into blocks of `block_prefix`. The first one is for service addresses (`vip`); every node
that takes part leases another (`lease`) and hands out its addresses alone.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network

from shoal.errors import InvalidArgument
from shoal.model.network import Network
from shoal.model.node import Node

BLOCK_PREFIX = 26
_SMALLEST_BLOCK = 29
_BLOCKS = 4  # bits: a small subnet is cut in 16, or less
_LONGEST_SUBNET = 28


def parse(subnet: str) -> IPv4Network:
    """The subnet a user asked for. Raises InvalidArgument for what an overlay cannot live in."""
    try:
        found = ipaddress.ip_network(subnet)
    except ValueError as error:
        raise InvalidArgument(f"subnet {subnet}: {error}", hint="write it as 10.1.0.0/16") from error
    if not isinstance(found, IPv4Network):
        raise InvalidArgument(f"subnet {subnet} is not IPv4")
    if found.prefixlen > _LONGEST_SUBNET:
        raise InvalidArgument(f"subnet {subnet} is too small to be shared by hosts", hint="use a /28 or larger")
    return found


def overlap(networks: Iterable[Network], subnet: str) -> Network | None:
    """A network whose subnet has addresses in common with `subnet`."""
    wanted = parse(subnet)
    return next((each for each in networks if each.subnet and wanted.overlaps(IPv4Network(each.subnet))), None)


def host_inside(nodes: Iterable[Node], subnet: str) -> Node | None:
    """A node whose own address is in `subnet`: containers would get it, and the hosts lose each other."""
    wanted = parse(subnet)
    return next((each for each in nodes if _has(wanted, each.description.address)), None)


def free(pool: str, prefix: int, taken: Iterable[str]) -> Iterator[IPv4Network]:
    """The subnets of `prefix` bits in `pool` that overlap none of `taken`, the lowest first."""
    yield from gaps(IPv4Network(pool), prefix, [IPv4Network(each) for each in taken])


def gaps(
    whole: IPv4Network, prefix: int, taken: Iterable[IPv4Network], *, from_the_end: bool = False
) -> Iterator[IPv4Network]:
    """The aligned parts of `whole` with `prefix` bits that overlap none of `taken`."""
    if prefix < whole.prefixlen:
        return
    size = 1 << (32 - prefix)
    start = int(whole.network_address)
    busy: set[int] = set()
    for each in taken:
        first, last = int(each.network_address), int(each.broadcast_address)
        if last >= start and first <= int(whole.broadcast_address):
            busy.update(range((max(first, start) - start) // size, (last - start) // size + 1))
    count = 1 << (prefix - whole.prefixlen)
    for number in reversed(range(count)) if from_the_end else range(count):
        if number not in busy:
            yield IPv4Network((start + number * size, prefix))


def block_prefix(subnet: str) -> int:
    """How a subnet is cut: a /16 in 1,024 blocks of 64 addresses, a /24 in 16 of 16."""
    return min(_SMALLEST_BLOCK, max(BLOCK_PREFIX, IPv4Network(subnet).prefixlen + _BLOCKS))


def first_block(network: Network) -> IPv4Network:
    """The one that no node gets."""
    return IPv4Network((int(IPv4Network(network.subnet).network_address), network.block_prefix))


def _has(subnet: IPv4Network, address: str) -> bool:
    try:
        return ipaddress.ip_address(address) in subnet
    except ValueError:  # a node that has not told its address yet
        return False
