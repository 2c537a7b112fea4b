"""Network: what containers reach each other on, with its ports, addresses, leases and endpoints.

An overlay's subnet is cut into blocks; each node that takes part leases one (`Lease`) and hands out addresses
from it alone, so a task's start needs no round trip. `Endpoint` is what every host balances by.
"""

from __future__ import annotations

import enum

from shoal.model.base import Meta, Value


class PortProtocol(enum.IntEnum):
    TCP = 1
    UDP = 2


class PublishMode(enum.IntEnum):
    INGRESS = 1
    HOST = 2


class Port(Value, frozen=True):
    """`target` is inside the container, `published` on the host (0: any free one). `host_address` counts in host
    mode only; empty means all. A `published_last` wishes for any free one from `published` to it."""

    protocol: PortProtocol = PortProtocol.TCP
    target: int = 0
    published: int = 0
    host_address: str = ""
    mode: PublishMode = PublishMode.INGRESS
    published_last: int = 0


class NetworkAttachment(Value, frozen=True):
    """`network` is a name or id, or one of docker's words: "bridge", "host", "none", "container:NAME". `address` and
    `mac` are what is wished for; empty: any. `links` are "NAME:ALIAS": another one on this network under a name of
    one's own, whoever is called NAME when it is asked for."""

    network: str = ""
    aliases: tuple[str, ...] = ()
    address: str = ""
    mac: str = ""
    links: tuple[str, ...] = ()


class Address(Value, frozen=True):
    """An address that a container has."""

    network_id: str = ""
    network_name: str = ""
    address: str = ""
    prefix: int = 0
    gateway: str = ""
    mac: str = ""


class NetworkScope(enum.IntEnum):
    LOCAL = 1
    SWARM = 2


class NetworkSpec(Value, frozen=True):
    """`driver` is "bridge", "overlay", "host" or "null". An empty `subnet` means: the next free one. Of a bridge, an
    empty `gateway` is the first address of the subnet, an empty `ip_range` all of it, an `mtu` of 0 what gets out of
    the host whole."""

    name: str = ""
    driver: str = ""
    labels: dict[str, str] = {}
    subnet: str = ""
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    gateway: str = ""
    ip_range: str = ""
    mtu: int = 0


class Network(Value, frozen=True):
    """`subnet` is what was allocated; `vni` and `block_prefix` are an overlay's, `gateway` a bridge's. Where a
    bridge is shown on its host, it has its `device` and the largest packet, too."""

    meta: Meta = Meta()
    spec: NetworkSpec = NetworkSpec()
    scope: NetworkScope = NetworkScope.LOCAL
    subnet: str = ""
    gateway: str = ""
    vni: int = 0
    block_prefix: int = 0
    device: str = ""
    mtu: int = 0


class Lease(Value, frozen=True):
    """The block of an overlay that one node hands addresses out of. `meta.id` is "NETWORK.NODE"."""

    meta: Meta = Meta()
    network_id: str = ""
    node_id: str = ""
    block: str = ""


class Backend(Value, frozen=True):
    """A task that can answer."""

    task_id: str = ""
    node_id: str = ""
    slot: int = 0
    address: str = ""


class Endpoint(Value, frozen=True):
    """Where a service is reached on one network and who answers. `address` is empty for dnsrr."""

    service_id: str = ""
    service_name: str = ""
    network_id: str = ""
    aliases: tuple[str, ...] = ()
    address: str = ""
    ports: tuple[Port, ...] = ()
    backends: tuple[Backend, ...] = ()
