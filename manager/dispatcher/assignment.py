"""Assignment: what one node has been told to do, computed from the view. Pure.

The agent keeps the same set (`agent/assignment.py`), so one session sends it whole once and changes from then on.
`affected` says for which nodes an event may change it, so that nobody else's is computed again; `assigner` holds
what is worth keeping between two computations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeAlias, TypeVar, cast

import msgspec

from manager.store.records import Noun, lease_id
from manager.store.view import View
from shoal.model.assignment import AssignedTask, NetworkAssignment, NetworkPeer, Template
from shoal.model.base import Meta
from shoal.model.network import Backend, Endpoint, Lease, Network, NetworkAttachment, Port, PublishMode
from shoal.model.node import Node, NodeState
from shoal.model.service import EndpointMode, Service, ServiceSpec, TaskSpec
from shoal.model.task import Task, TaskState

Item: TypeAlias = Template | NetworkAssignment | Endpoint | AssignedTask
TemplateKey: TypeAlias = tuple[str, int]
K = TypeVar("K")
V = TypeVar("V", Template, NetworkAssignment, Endpoint, AssignedTask)


class Assignment(msgspec.Struct, frozen=True):
    """All that is assigned to a node, by key. Every task's template is among the templates."""

    templates: Mapping[TemplateKey, Template] = {}
    networks: Mapping[str, NetworkAssignment] = {}
    endpoints: Mapping[tuple[str, str], Endpoint] = {}
    tasks: Mapping[str, AssignedTask] = {}


class Change(msgspec.Struct, frozen=True):
    """`item` is new or different; with `remove` it holds no more than what it is known by."""

    item: Item
    remove: bool = False


def assignment_of(
    view: View,
    node_id: str,
    *,
    template_for: Callable[[Task], Template] | None = None,
    endpoints_on: Callable[[str], Iterable[Endpoint]] | None = None,
) -> Assignment:
    """What `node_id` has been told to do. The two callables may answer from memory what is computed here."""
    template_for = template_for or (lambda task: template_of(view, task.service_id, task.task_version))
    endpoints_on = endpoints_on or (lambda network_id: endpoints_in(view, network_id))
    templates: dict[TemplateKey, Template] = {}
    tasks: dict[str, AssignedTask] = {}
    for task in view.tasks_of_node(node_id):
        if task.status.state is TaskState.ORPHANED:
            continue
        key = (task.service_id, task.task_version)
        if key not in templates:
            templates[key] = template_for(task)
        tasks[task.meta.id] = AssignedTask(task.meta.id, task.service_id, task.task_version, task.slot, task.desired)
    networks = {lease.network_id: network_for(view, lease) for lease in _leases_of(view, node_id)}
    endpoints = {
        (endpoint.service_id, endpoint.network_id): endpoint
        for network_id in networks
        for endpoint in endpoints_on(network_id)
    }
    return Assignment(templates, networks, endpoints, tasks)


def diff(old: Assignment, new: Assignment) -> list[Change]:
    """The changes from `old` to `new`, in an order in which every beginning of the list makes sense: what a task
    needs comes before it and goes after it, and a backend leaves the balance before its task is told to stop."""
    changes = [
        *_upserts(old.templates, new.templates),
        *_upserts(old.networks, new.networks),
        *_upserts(old.endpoints, new.endpoints),
        *_upserts(old.tasks, new.tasks),
    ]
    changes += [Change(AssignedTask(task_id=id), remove=True) for id in old.tasks if id not in new.tasks]
    changes += [
        Change(Endpoint(service_id=service_id, network_id=network_id), remove=True)
        for service_id, network_id in old.endpoints
        if (service_id, network_id) not in new.endpoints
    ]
    changes += [
        Change(NetworkAssignment(network=Network(meta=Meta(id=id))), remove=True)
        for id in old.networks
        if id not in new.networks
    ]
    changes += [
        Change(Template(service_id=service_id, task_version=version), remove=True)
        for service_id, version in old.templates
        if (service_id, version) not in new.templates
    ]
    return changes


def template_of(view: View, service_id: str, task_version: int) -> Template:
    """The template of one version of a service.

    Only the present spec and that of the version before are kept. A task of an older version, or of a service that is
    gone, is running out: its template says whose it is and nothing else, which is enough to watch it and to stop it.
    """
    service = view.services.get(service_id)
    if service is not None:
        if task_version == service.task_version:
            return _template(view, service, service.spec, service.task_version)
        if service.outgoing is not None and task_version == service.task_version - 1:
            return _template(view, service, service.outgoing, task_version)
    return Template(service_id, task_version, service.spec.name if service else "")


def redeploys(old: ServiceSpec, new: ServiceSpec) -> bool:
    """Whether tasks made from `old` are not what `new` asks for: what raises a service's `task_version`.

    Besides the task's own spec these are the ports that a container itself publishes, and whether it must be on
    the ingress network.
    """
    return old.task != new.task or _host_ports(old) != _host_ports(new) or has_ingress(old) != has_ingress(new)


def has_ingress(spec: ServiceSpec) -> bool:
    """Whether the mesh carries a port of this service."""
    return any(port.mode is PublishMode.INGRESS for port in spec.ports)


def endpoints_in(view: View, network_id: str) -> Iterator[Endpoint]:
    """All endpoints on one network."""
    for service in view.services.values():
        for endpoint in endpoints_of(view, service):
            if endpoint.network_id == network_id:
                yield endpoint


def endpoints_of(view: View, service: Service) -> tuple[Endpoint, ...]:
    """Where a service is reached: on each network that it has an address on (vip) or is attached to (dnsrr)."""
    aliases = {
        network.meta.id: attachment.aliases
        for attachment in service.spec.task.networks
        if (network := view.network(attachment.network)) is not None
    }
    places = {address.network_id: address.address for address in service.addresses}
    if service.spec.endpoint_mode is EndpointMode.DNSRR:
        places = dict.fromkeys(aliases, "")
    return tuple(
        Endpoint(
            service_id=service.meta.id,
            service_name=service.spec.name,
            network_id=network_id,
            aliases=aliases.get(network_id, ()),
            address=address,
            ports=_mesh_ports(service) if network.spec.ingress else (),
            backends=tuple(_backends(view, service.meta.id, network_id)),
        )
        for network_id, address in places.items()
        if (network := view.networks.get(network_id)) is not None
    )


def network_for(view: View, lease: Lease) -> NetworkAssignment:
    """A network as the holder of `lease` sees it."""
    peers = (
        NetworkPeer(other.node_id, node.description.address, other.block)
        for other in view.leases_of_network(lease.network_id)
        if other.node_id != lease.node_id and other.block
        if (node := view.nodes.get(other.node_id)) is not None and node.description.address
    )
    return NetworkAssignment(
        view.networks[lease.network_id], lease.block, tuple(sorted(peers, key=lambda peer: peer.node_id))
    )


def affected(view: View, old: Noun | None, new: Noun | None) -> set[str]:
    """The nodes whose assignment may have changed when `old` became `new`. `view` is that of after."""
    match new or old:
        case Task():
            return _affected_by_task(view, cast("Task | None", old), cast("Task | None", new))
        case Service(meta=meta):
            nodes = {task.node_id for task in view.tasks_of_service(meta.id) if task.node_id}
            for value in (old, new):
                if isinstance(value, Service):
                    nodes |= _on_networks(view, networks_of(view, value))
            return nodes
        case Network(meta=meta):
            return _on_networks(view, {meta.id})
        case Lease(network_id=network_id, node_id=node_id):
            return _on_networks(view, {network_id}) | {node_id}
        case Node(meta=meta):
            return _affected_by_node(view, meta.id, old, new)
        case _:
            return set()


def networks_of(view: View, service: Service) -> set[str]:
    """Ids of the cluster's networks that a service is reached on."""
    attached = (view.network(attachment.network) for attachment in service.spec.task.networks)
    ids = {network.meta.id for network in attached if network is not None}
    return ids | {address.network_id for address in service.addresses}


def answers(view: View, task: Task) -> bool:
    """Whether a task belongs into the balance: it runs, shall go on running, and its node is not known dead."""
    if task.status.state is not TaskState.RUNNING or task.desired is not TaskState.RUNNING:
        return False
    node = view.nodes.get(task.node_id)
    return node is not None and node.status.state is not NodeState.DOWN


def rebalances(old: Task | None, new: Task | None) -> bool:
    """Whether a task's change may change who answers for its service."""
    return _balance(old) != _balance(new)


def _balance(task: Task | None) -> tuple[bool, object]:
    if task is None or task.status.state is not TaskState.RUNNING or task.desired is not TaskState.RUNNING:
        return False, ()
    return True, task.status.addresses


def _affected_by_task(view: View, old: Task | None, new: Task | None) -> set[str]:
    nodes = {task.node_id for task in (old, new) if task is not None and task.node_id}
    task = new or old
    service = view.services.get(task.service_id) if task is not None and rebalances(old, new) else None
    return nodes if service is None else nodes | _on_networks(view, networks_of(view, service))


def _affected_by_node(view: View, node_id: str, old: Noun | None, new: Noun | None) -> set[str]:
    before, after = (_seen_by_others(node) for node in (old, new))
    if before == after:
        return set()
    nodes = _on_networks(view, {lease.network_id for lease in view.leases_of_node(node_id)})
    for task in view.tasks_of_node(node_id):
        if (service := view.services.get(task.service_id)) is not None:
            nodes |= _on_networks(view, networks_of(view, service))
    return nodes


def _seen_by_others(node: Noun | None) -> tuple[bool, str]:
    """What other nodes' assignments say of a node: whether its tasks answer, and where it is."""
    if not isinstance(node, Node):
        return False, ""
    return node.status.state is not NodeState.DOWN, node.description.address


def _on_networks(view: View, network_ids: set[str]) -> set[str]:
    return {lease.node_id for id in network_ids for lease in view.leases_of_network(id)}


def _leases_of(view: View, node_id: str) -> Iterator[Lease]:
    for lease in view.leases_of_node(node_id):
        # `lease_id` guards against a record that was written under another's id.
        if lease.network_id in view.networks and lease.meta.id == lease_id(lease.network_id, node_id):
            yield lease


def _template(view: View, service: Service, spec: ServiceSpec, task_version: int) -> Template:
    pinned = spec.task.container.image == service.spec.task.container.image
    return Template(
        service_id=service.meta.id,
        task_version=task_version,
        service_name=spec.name,
        service_labels=spec.labels,
        spec=_attached(view, spec),
        image_digest=service.image_digest if pinned else "",
        ports=_host_ports(spec),
    )


def _attached(view: View, spec: ServiceSpec) -> TaskSpec:
    """The task's spec, with the ingress network among its networks where the mesh must reach it."""
    if not has_ingress(spec):
        return spec.task
    ingress = next((each for each in view.networks.values() if each.spec.ingress), None)
    if ingress is None or any(each.network == ingress.meta.id for each in spec.task.networks):
        return spec.task
    networks = (*spec.task.networks, NetworkAttachment(ingress.meta.id))
    return msgspec.structs.replace(spec.task, networks=networks)


def _host_ports(spec: ServiceSpec) -> tuple[Port, ...]:
    return tuple(port for port in spec.ports if port.mode is PublishMode.HOST)


def _mesh_ports(service: Service) -> tuple[Port, ...]:
    return tuple(port for port in service.ports if port.mode is PublishMode.INGRESS and port.published)


def _backends(view: View, service_id: str, network_id: str) -> Iterator[Backend]:
    for task in sorted(view.tasks_of_service(service_id), key=lambda task: (task.slot, task.meta.id)):
        if answers(view, task):
            for address in task.status.addresses:
                if address.network_id == network_id:
                    yield Backend(task.meta.id, task.node_id, task.slot, address.address)


def _upserts(old: Mapping[K, V], new: Mapping[K, V]) -> Iterator[Change]:
    for key, item in new.items():
        if old.get(key) != item:
            yield Change(item)
