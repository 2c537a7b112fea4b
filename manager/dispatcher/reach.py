"""Reach: how the nodes of a network reach each other and the services on it, item by item, as of the view. Pure.

`bulletin` keeps what comes of it and tells the nodes. A backend stands in it while its task runs and shall go on
running, so that it leaves before the task is told to stop.
"""

from __future__ import annotations

from collections.abc import Iterator

from manager.store.records import Noun, lease_id
from manager.store.view import View
from shoal.model.assignment import AssignedBackend, AssignedPeer, NetworkPeer
from shoal.model.network import Backend, Endpoint, Port, PublishMode
from shoal.model.node import Node, NodeState
from shoal.model.service import EndpointMode, Service
from shoal.model.task import Task, TaskState


def peer_of(view: View, network_id: str, node_id: str) -> AssignedPeer | None:
    """A node's part of a network, for those that route to it."""
    lease = view.leases.get(lease_id(network_id, node_id))
    node = view.nodes.get(node_id)
    if lease is None or node is None or not lease.block or not node.description.address:
        return None
    return AssignedPeer(network_id, NetworkPeer(node_id, node.description.address, lease.block))


def endpoint_of(view: View, network_id: str, service_id: str) -> Endpoint | None:
    """Where a service is reached on a network that it has an address on (vip) or is attached to (dnsrr)."""
    service, network = view.services.get(service_id), view.networks.get(network_id)
    if service is None or network is None:
        return None
    aliases = _aliases(view, service)
    places = {address.network_id: address.address for address in service.addresses}
    if service.spec.endpoint_mode is EndpointMode.DNSRR:
        places = dict.fromkeys(aliases, "")
    if network_id not in places:
        return None
    return Endpoint(
        service_id=service_id,
        service_name=service.spec.name,
        network_id=network_id,
        aliases=aliases.get(network_id, ()),
        address=places[network_id],
        ports=_mesh_ports(service) if network.spec.ingress else (),
    )


def backend_of(view: View, network_id: str, service_id: str, task_id: str) -> AssignedBackend | None:
    """A task that answers for its service on a network."""
    task, service = view.tasks.get(task_id), view.services.get(service_id)
    if task is None or service is None or not answers(view, task) or network_id not in networks_of(view, service):
        return None
    for address in task.status.addresses:
        if address.network_id == network_id:
            return AssignedBackend(service_id, network_id, Backend(task_id, task.node_id, task.slot, address.address))
    return None


def networks_of(view: View, service: Service) -> set[str]:
    """Ids of the cluster's networks that a service is reached on."""
    return _aliases(view, service).keys() | {address.network_id for address in service.addresses}


def services_on(view: View, network_id: str) -> Iterator[str]:
    """Ids of the services that are reached on a network."""
    return (id for id, service in view.services.items() if network_id in networks_of(view, service))


def answers(view: View, task: Task) -> bool:
    """Whether a task belongs into the balance: it runs, shall go on running, and its node is not known dead."""
    if task.status.state is not TaskState.RUNNING or task.desired is not TaskState.RUNNING:
        return False
    node = view.nodes.get(task.node_id)
    return node is not None and node.status.state is not NodeState.DOWN


def rebalances(old: Task | None, new: Task | None) -> bool:
    """Whether a task's change may change who answers for its service."""
    return _balance(old) != _balance(new)


def seen_by_others(node: Noun | None) -> tuple[bool, str]:
    """What other nodes are told of a node: whether its tasks answer, and where it is."""
    if not isinstance(node, Node):
        return False, ""
    return node.status.state is not NodeState.DOWN, node.description.address


def _balance(task: Task | None) -> tuple[bool, object]:
    if task is None or task.status.state is not TaskState.RUNNING or task.desired is not TaskState.RUNNING:
        return False, ()
    return True, task.status.addresses


def _aliases(view: View, service: Service) -> dict[str, tuple[str, ...]]:
    """Network → the names that the service goes by there, for those that it is attached to."""
    return {
        network.meta.id: attachment.aliases
        for attachment in service.spec.task.networks
        if (network := view.network(attachment.network)) is not None
    }


def _mesh_ports(service: Service) -> tuple[Port, ...]:
    return tuple(port for port in service.ports if port.mode is PublishMode.INGRESS and port.published)
