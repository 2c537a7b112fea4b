"""Connection: what a container learns of its network. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address

import msgspec

from agent.network import netlink
from agent.network.hosts import Resolvers
from agent.network.record import Record
from agent.network.sandbox import prefix_of
from agent.network.segment import Segment
from shoal import ids
from shoal.model.network import Address, Port


class Connection(msgspec.Struct, frozen=True):
    """`netns_path` is "" for the host's own namespace, else valid until `Networks.started`.

    `nameservers`, `search` and `options` are for /etc/resolv.conf, `hosts` are lines for /etc/hosts (`hosts.py` has
    the files' text). `ports` have their numbers filled in.
    """

    netns_path: str = ""
    addresses: tuple[Address, ...] = ()
    ports: tuple[Port, ...] = ()
    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def on_host(own: Resolvers, reachable: tuple[str, ...]) -> Connection:
    """The host's own network, where its loopback nameservers answer too."""
    return Connection(nameservers=own.nameservers or reachable, search=own.search, options=own.options)


def on_none(netns_path: str, own: Resolvers, reachable: tuple[str, ...]) -> Connection:
    return Connection(netns_path=netns_path, nameservers=reachable, search=own.search, options=own.options)


def on_networks(
    record: Record,
    segments: Sequence[Segment],
    netns_path: str,
    *,
    hostname: str,
    own: Resolvers,
    reachable: tuple[str, ...],
) -> Connection:
    """`segments` go with what `record` attached. On a network with names its resolver is asked, else the host's."""
    named = tuple(str(segment.gateway) for segment in segments if segment.named)
    addresses = tuple(
        Address(
            network_id=segment.network_id,
            network_name=segment.name,
            address=attached.address,
            prefix=prefix_of(segment),
            gateway=str(segment.gateway),
            mac=attached.mac or netlink.mac_of(IPv4Address(attached.address)),
        )
        for segment, attached in zip(segments, record.attached, strict=True)
    )
    called = hostname or ids.short(record.container_id)
    return Connection(
        netns_path=netns_path,
        addresses=addresses,
        ports=record.ports,
        nameservers=named[:1] or reachable,
        search=own.search,
        hosts=tuple(f"{address.address}\t{called}" for address in addresses),
        options=("ndots:0",) if named else own.options,
    )
