"""Service addresses: one per service and network that balances by address.

They fill a network's first block, and then whole blocks from its end that no node has leased, so that neither
ever meets a node's own block.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network

from manager.allocator import subnet
from shoal.model.network import Lease, Network
from shoal.model.service import Service


def taken_in(network_id: str, services: Iterable[Service]) -> set[str]:
    """The addresses that services have on a network."""
    return {
        address.address for service in services for address in service.addresses if address.network_id == network_id
    }


def free(network: Network, taken: set[str], leases: Iterable[Lease]) -> Iterator[str]:
    """Addresses that nobody has, in the order to give them out."""
    whole = IPv4Network(network.subnet)
    first = subnet.first_block(network)
    leased = [IPv4Network(lease.block) for lease in leases]
    more = subnet.gaps(whole, network.block_prefix, [first, *leased], from_the_end=True)
    ends = (whole.network_address, whole.broadcast_address)
    for block in itertools.chain((first,), more):
        for address in block:
            if str(address) not in taken and address not in ends:
                yield str(address)


def blocks_of(network: Network, taken: Iterable[str]) -> set[IPv4Network]:
    """The blocks that service addresses lie in, always with the first one."""
    prefix = network.block_prefix
    blocks = {IPv4Network((int(IPv4Address(each)) >> (32 - prefix) << (32 - prefix), prefix)) for each in taken}
    return blocks | {subnet.first_block(network)}
