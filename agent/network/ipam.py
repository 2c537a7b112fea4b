"""Addresses: which one a container gets, and which subnet a network. Pure; `record.py` keeps what was given.

An address is not given again before the rest of its block has had its turn, so that what others still remember of
a gone container (connections, names in caches) seldom meets a new one.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network

from shoal.errors import Conflict, Exhausted


class Pool:
    """The addresses of one block, without `reserved`."""

    def __init__(self, name: str, block: IPv4Network, reserved: Iterable[IPv4Address]) -> None:
        self._name = name
        self.block = block
        self._reserved = frozenset(reserved)
        self._taken: set[IPv4Address] = set()
        self._last = block.network_address

    @property
    def taken(self) -> frozenset[IPv4Address]:
        return frozenset(self._taken)

    def take(self) -> IPv4Address:
        """The lowest free address after the one taken last. Raises Exhausted."""
        address = next_address(self.block, self._taken | self._reserved, self._last)
        if address is None:
            raise Exhausted(
                f"network {self._name}: no free address in {self.block}, {len(self._taken)} are in use",
                hint="remove containers, or make a network with a larger --subnet",
            )
        self.hold(address)
        return address

    def claim(self, address: IPv4Address) -> None:
        """Take this very one. Raises Conflict."""
        if address in self._taken | self._reserved:
            raise Conflict(f"network {self._name}: Address already in use: {address}", hint="choose another with --ip")
        self._taken.add(address)

    def hold(self, address: IPv4Address) -> None:
        """Mark as taken; takes also what is outside the block, for a container that outlived a change of it."""
        self._taken.add(address)
        if address in self.block:
            self._last = address

    def release(self, address: IPv4Address) -> None:
        self._taken.discard(address)


def next_address(block: IPv4Network, taken: Container[IPv4Address], after: IPv4Address) -> IPv4Address | None:
    """The first address of `block` behind `after`, going round, that is not `taken`; never its first or last."""
    size = block.num_addresses
    start = int(after) - int(block.network_address)
    for step in range(1, size + 1):
        offset = (start + step) % size
        if 0 < offset < size - 1:
            address = block.network_address + offset
            if address not in taken:
                return address
    return None


def bridge_subnets() -> Iterator[IPv4Network]:
    """What a bridge network may get, in docker's order."""
    for second in range(17, 32):
        yield IPv4Network(f"172.{second}.0.0/16")
    for third in range(0, 256, 16):
        yield IPv4Network(f"192.168.{third}.0/20")


def free_subnet(in_use: Iterable[IPv4Network]) -> IPv4Network:
    """The first of `bridge_subnets` that overlaps none `in_use`. Raises Exhausted."""
    used = [network for network in in_use if network.prefixlen]
    for subnet in bridge_subnets():
        if not any(subnet.overlaps(network) for network in used):
            return subnet
    raise Exhausted(
        "could not find an available, non-overlapping IPv4 address pool among the defaults",
        hint="remove unused networks, or choose a subnet with --subnet",
    )
