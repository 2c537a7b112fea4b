"""A network as `docker network inspect` shows it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cli.document.common import by_key
from cli.output.words import rfc3339
from shoal.v1.types_pb2 import NETWORK_SCOPE_SWARM, Container, Network


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
        "EnableIPv6": False,
        "IPAM": {"Driver": "default", "Config": [pool] if network.subnet else []},
        "Internal": spec.internal,
        "Attachable": spec.attachable,
        "Ingress": spec.ingress,
        "Containers": {
            each.meta.id: {
                "Name": each.name,
                "MacAddress": address.mac,
                "IPv4Address": f"{address.address}/{address.prefix}",
                "IPv6Address": "",
            }
            for each in containers
            for address in each.status.addresses
            if address.network_id == network.meta.id
        },
        "Options": {"com.docker.network.driver.overlay.vxlanid_list": str(network.vni)} if network.vni else {},
        "Labels": by_key(spec.labels),
    }
