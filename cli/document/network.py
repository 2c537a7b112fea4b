"""A network as `docker network inspect` shows it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from cli.document.common import by_key
from cli.document.sandbox import endpoint_id
from cli.document.task import name_of
from cli.output.unsaid import said
from cli.output.words import rfc3339
from shoal.ids import short
from shoal.v1.control_pb2 import TaskView
from shoal.v1.types_pb2 import (
    NETWORK_SCOPE_SWARM,
    PUBLISH_MODE_HOST,
    TASK_STATE_RUNNING,
    Address,
    Container,
    Network,
    Node,
    Service,
)

_BUILT_IN = ("bridge", "host", "none")


class Cluster(NamedTuple):
    """What the managers know of who may be on an overlay."""

    services: Iterable[Service] = ()
    tasks: Iterable[TaskView] = ()
    nodes: Iterable[Node] = ()


def document(network: Network, containers: Iterable[Container] = (), cluster: Cluster | None = None) -> dict[str, Any]:
    """`containers`: those of a host that may be on it; `cluster`: for the verbose one of an overlay."""
    containers = list(containers)
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
        **_of_cluster(network, containers, cluster or Cluster()),
    }


def _of_cluster(network: Network, containers: list[Container], cluster: Cluster) -> dict[str, Any]:
    """Its services by name, those that have a running task, and the nodes of these. Our balance has no index, and of
    the endpoints this host knows the ids of its own."""
    nodes = {each.meta.id: each for each in cluster.nodes}
    services = {each.meta.id: each for each in cluster.services}
    ids = {each.meta.id: endpoint_id(each, _place(each.status.addresses, network) or Address()) for each in containers}
    shown: dict[str, Any] = {}
    peers: dict[str, Node] = {}
    for view in cluster.tasks:
        task, status = view.task, view.task.status
        place = _place(status.addresses, network)
        if status.state != TASK_STATE_RUNNING or place is None or task.service_id not in services:
            continue
        node = nodes.get(task.node_id, Node())
        peers[task.node_id] = node
        service = shown.setdefault(view.service_name, _service(services[task.service_id], network))
        service["Tasks"].append(
            {
                "Name": name_of(view),
                "EndpointID": ids.get(status.container_id, ""),
                "EndpointIP": place.address,
                "Info": {"Host IP": node.description.address},
            }
        )
    told = [{"Name": _peer(each), "IP": each.description.address} for each in peers.values()]
    return {
        "Peers": said(sorted(told, key=lambda peer: peer["Name"])),
        "Services": said(dict(sorted(shown.items()))),
    }


def _place(addresses: Iterable[Address], network: Network) -> Address | None:
    return next((each for each in addresses if each.network_id == network.meta.id), None)


def _service(service: Service, network: Network) -> dict[str, Any]:
    """Ports that all hosts publish are the ingress network's."""
    ports = [each for each in service.ports if each.mode != PUBLISH_MODE_HOST] if network.spec.ingress else []
    return {
        "VIP": next((each.address for each in service.addresses if each.network_id == network.meta.id), ""),
        "Ports": [f"Target: {each.target}, Publish: {each.published}" for each in ports],
        "LocalLBIndex": 0,
        "Tasks": [],
    }


def _peer(node: Node) -> str:
    return f"{node.description.hostname}-{short(node.meta.id)}"


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
