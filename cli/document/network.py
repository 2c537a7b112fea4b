"""A network as `docker network inspect` shows it."""

from __future__ import annotations

from typing import Any

from cli.output.words import rfc3339
from shoal.v1.types_pb2 import NETWORK_SCOPE_SWARM, Network


def document(network: Network) -> dict[str, Any]:
    spec = network.spec
    pool = {"Subnet": network.subnet, **({"Gateway": network.gateway} if network.gateway else {})}
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
        "Options": {"com.docker.network.driver.overlay.vxlanid_list": str(network.vni)} if network.vni else {},
        "Labels": dict(spec.labels),
    }
