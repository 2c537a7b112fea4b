"""`NetworkSettings` of a container: where its network is, and how it is reached.

Docker mints an id for each run's network and each place on one. Ours are digests of what they stand for, so that
whoever shows one shows the same: others after the next start, as Docker's.
"""

from __future__ import annotations

import hashlib
from typing import Any

from cli.document.common import bindings, ports_of
from cli.output.unsaid import NullList, NullMap, listed
from shoal import ids
from shoal.v1.engine_pb2 import ContainerLayout
from shoal.v1.types_pb2 import Address, Container

_OF_ANOTHER = "container:"
# Names are for networks that a user made; on Docker's default one there are none.
_NAMELESS = ("bridge", "host", "none")
_NO_IPV6 = {"IPv6Gateway": "", "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0}


def network_settings(container: Container, layout: ContainerLayout) -> dict[str, Any]:
    first = container.status.addresses[0] if container.status.addresses else Address()
    pid = container.status.pid
    own = bool(pid) and not _joined(container)
    return {
        "Bridge": "",
        "SandboxID": _digest(container, "sandbox") if own else "",
        # as long as it runs, where its network can be entered (nsenter --net=)
        "SandboxKey": f"/proc/{pid}/ns/net" if pid else "",
        "Ports": bindings(ports_of(container)),
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": NullList(),
        "SecondaryIPv6Addresses": NullList(),
        "EndpointID": endpoint_id(container, first),
        "Gateway": first.gateway,
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "IPAddress": first.address,
        "IPPrefixLen": first.prefix,
        "IPv6Gateway": "",
        "MacAddress": first.mac,
        "Networks": _networks(container, layout),
    }


def endpoint_id(container: Container, address: Address) -> str:
    """Of its place on a network; empty without one."""
    return _digest(container, address.network_id) if address.network_id else ""


def _digest(container: Container, what: str) -> str:
    return hashlib.sha256(f"{container.meta.id} {container.status.started_at_ns} {what}".encode()).hexdigest()


def _networks(container: Container, layout: ContainerLayout) -> dict[str, Any]:
    """Those that it is on, and while it does not run those that it is to be on."""
    if container.status.addresses:
        return {each.network_name: _place(container, each, each.network_name) for each in container.status.addresses}
    if _joined(container):
        return {}
    return {
        each.network: _place(container, Address(), each.network, layout.network_ids.get(each.network, ""))
        for each in container.networks
    }


def _place(container: Container, address: Address, network: str, network_id: str = "") -> dict[str, Any]:
    wished = [each for each in container.networks if each.network == network]
    given = [each.address for each in wished if each.address]
    aliases = [alias for each in wished for alias in each.aliases]
    named = network not in _NAMELESS
    return {
        "IPAMConfig": {"IPv4Address": given[0]} if given else None,
        "Links": listed(link for each in wished for link in each.links),
        "Aliases": listed(aliases),
        "NetworkID": address.network_id or network_id,
        "EndpointID": endpoint_id(container, address),
        "Gateway": address.gateway,
        "IPAddress": address.address,
        "IPPrefixLen": address.prefix,
        **_NO_IPV6,
        "MacAddress": address.mac,
        "DriverOpts": NullMap(),
        "DNSNames": listed([container.name, *aliases, ids.short(container.meta.id)] if named else ()),
    }


def _joined(container: Container) -> bool:
    return bool(container.networks) and container.networks[0].network.startswith(_OF_ANOTHER)
