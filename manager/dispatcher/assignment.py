"""Assignment: what one node has been told to do, computed from the view. Pure.

The agent keeps the same set (`agent/assignment.py`), so one session sends it whole once and changes from then on.
`affected` says for which nodes an event may change it, so that nobody else's is computed again; `assigner` holds
what is worth keeping between two computations. What all nodes of a network are told alike is in `bulletin`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias, TypeVar, cast

import msgspec

from manager.dispatcher.encode import Change
from manager.store.records import Noun, lease_id
from manager.store.view import View
from shoal.model.assignment import AssignedTask, NetworkAssignment, Template
from shoal.model.base import Meta
from shoal.model.network import Lease, Network, NetworkAttachment, Port, PublishMode
from shoal.model.service import Service, ServiceSpec, TaskSpec
from shoal.model.task import Task, TaskState

TemplateKey: TypeAlias = tuple[str, int]
K = TypeVar("K")
V = TypeVar("V", Template, NetworkAssignment, AssignedTask)


class Assignment(msgspec.Struct, frozen=True):
    """All that is assigned to a node alone, by key. Every task's template is among the templates."""

    templates: Mapping[TemplateKey, Template] = {}
    networks: Mapping[str, NetworkAssignment] = {}
    tasks: Mapping[str, AssignedTask] = {}


class Difference(msgspec.Struct, frozen=True):
    """Two lists of changes. What the node's networks have new belongs between them: what a task needs comes before it
    and goes after it, and a backend leaves the balance before its task is told to stop."""

    first: list[Change]
    last: list[Change]


def assignment_of(view: View, node_id: str, *, template_for: Callable[[Task], Template] | None = None) -> Assignment:
    """What `node_id` has been told to do. `template_for` may answer from memory what is computed here."""
    template_for = template_for or (lambda task: template_of(view, task.service_id, task.task_version))
    templates: dict[TemplateKey, Template] = {}
    tasks: dict[str, AssignedTask] = {}
    for task in view.tasks_of_node(node_id):
        if task.status.state is TaskState.ORPHANED:
            continue
        key = (task.service_id, task.task_version)
        if key not in templates:
            templates[key] = template_for(task)
        tasks[task.meta.id] = AssignedTask(task.meta.id, task.service_id, task.task_version, task.slot, task.desired)
    networks = {
        lease.network_id: NetworkAssignment(view.networks[lease.network_id], lease.block)
        for lease in _leases_of(view, node_id)
    }
    return Assignment(templates, networks, tasks)


def diff(old: Assignment, new: Assignment) -> Difference:
    """The changes from `old` to `new`, in an order in which every beginning of them makes sense."""
    first = [*_upserts(old.templates, new.templates), *_upserts(old.networks, new.networks)]
    last = list(_upserts(old.tasks, new.tasks))
    last += [Change(AssignedTask(task_id=id), remove=True) for id in old.tasks if id not in new.tasks]
    last += [
        Change(NetworkAssignment(network=Network(meta=Meta(id=id))), remove=True)
        for id in old.networks
        if id not in new.networks
    ]
    last += [
        Change(Template(service_id=service_id, task_version=version), remove=True)
        for service_id, version in old.templates
        if (service_id, version) not in new.templates
    ]
    return Difference(first, last)


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


def affected(view: View, old: Noun | None, new: Noun | None) -> set[str]:
    """The nodes whose assignment may have changed when `old` became `new`. `view` is that of after."""
    match new or old:
        case Task():
            before, after = cast("Task | None", old), cast("Task | None", new)
            if before is not None and after is not None and _assigned(before) == _assigned(after):
                return set()  # its agent said something of it
            return {task.node_id for task in (before, after) if task is not None and task.node_id}
        case Service(meta=meta):
            return {task.node_id for task in view.tasks_of_service(meta.id) if task.node_id}
        case Network(meta=meta):
            return {lease.node_id for lease in view.leases_of_network(meta.id)}
        case Lease(node_id=node_id):
            return {node_id}
        case _:
            return set()


def _assigned(task: Task) -> tuple[object, ...]:
    """All of a task that its node's assignment depends on."""
    state = task.status.state
    return task.node_id, task.desired, state >= TaskState.ASSIGNED, state is TaskState.ORPHANED


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


def _upserts(old: Mapping[K, V], new: Mapping[K, V]) -> Iterator[Change]:
    for key, item in new.items():
        if old.get(key) != item:
            yield Change(item)
