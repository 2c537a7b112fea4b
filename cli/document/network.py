"""A network as `docker network inspect` shows it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cli.document.common import by_key
from cli.document.sandbox import endpoint_id
from cli.output.words import rfc3339
from shoal.v1.types_pb2 import NETWORK_SCOPE_SWARM, Container, Network

_BUILT_IN = ("bridge", "host", "none")


def document(network: Network, containers: Iterable[Container] = ()) -> dict[str, Any]:
    """`containers`: those that may be on it."""
    spec = network.spec
    pool = {
        "Subnet": network.subnet,
        **({"IPRange": spec.ip_range} if spec.ip_range else {}),
        **({"Gateway": network.gateway} if network.gateway else {}),
    }
    return {
        "Name": spec.name,
        "Id": network.meta.id,
        "Created": rfc3339(network.meta.created_at_ns),
        "Scope": "swarm" if network.scope == NETWORK_SCOPE_SWARM else "local",
        "Driver": spec.driver,
        "EnableIPv4": True,
        "EnableIPv6": False,
        "IPAM": {
            "Driver": "default",
            "Options": None if spec.name in _BUILT_IN else {},
            "Config": [pool] if network.subnet else [],
        },
        "Internal": spec.internal,
        "Attachable": spec.attachable,
        "Ingress": spec.ingress,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {
            each.meta.id: {
                "Name": each.name,
                "EndpointID": endpoint_id(each, address),
                "MacAddress": address.mac,
                "IPv4Address": f"{address.address}/{address.prefix}",
                "IPv6Address": "",
            }
            for each in containers
            for address in each.status.addresses
            if address.network_id == network.meta.id
        },
        "Options": _options(network),
        "Labels": by_key(spec.labels),
    }


def _options(network: Network) -> dict[str, str]:
    """What it is, in the words by which Docker's users ask for it."""
    if network.vni:
        return {"com.docker.network.driver.overlay.vxlanid_list": str(network.vni)}
    if not network.device:
        return {}
    default = {
        "com.docker.network.bridge.default_bridge": "true",
        "com.docker.network.bridge.enable_icc": "true",
        "com.docker.network.bridge.enable_ip_masquerade": "true",
        "com.docker.network.bridge.host_binding_ipv4": "0.0.0.0",
    }
    return {
        **(default if network.spec.name == "bridge" else {}),
        "com.docker.network.bridge.name": network.device,
        "com.docker.network.driver.mtu": str(network.mtu),
    }
