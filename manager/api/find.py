"""Find: which record a reference stands for, and which records a filter lets through. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from manager.store.view import View
from shoal.errors import Conflict, InvalidArgument, Unavailable
from shoal.ids import resolve
from shoal.model.cluster import Cluster
from shoal.model.network import Network
from shoal.model.node import Node
from shoal.model.service import Service
from shoal.model.task import Task
from shoal.names import printable

# Whether something has what a filter's value says.
Test = Callable[[str], bool]


def cluster_of(view: View) -> Cluster:
    if view.cluster is None:
        raise Unavailable("the cluster is not set up yet", hint="try again in a moment")
    return view.cluster


def node_of(view: View, reference: str, *, own_id: str) -> Node:
    """By id, by hostname, by a unique beginning of an id, or "self"."""
    if reference == "self":
        reference = own_id
    if reference in view.nodes:
        return view.nodes[reference]
    named = [node for node in view.nodes.values() if node.description.hostname == reference]
    if len(named) > 1:
        raise Conflict(f"node {reference} is ambiguous: {len(named)} nodes have this hostname", hint="give an id")
    return named[0] if named else view.nodes[resolve(printable(reference), view.nodes, kind="node")]


def service_of(view: View, reference: str) -> Service:
    """By id, by name, or by a unique beginning of an id."""
    found = view.services.get(reference) or view.service_named(reference)
    return found or view.services[resolve(printable(reference), view.services, kind="service")]


def network_of(view: View, reference: str) -> Network:
    """By id, by name, or by a unique beginning of an id."""
    found = view.network(reference)
    return found or view.networks[resolve(printable(reference), view.networks, kind="network")]


def task_of(view: View, reference: str) -> Task:
    """By id, by name ("web.1": the newest in that place; "web.1.ID"), or by a unique beginning of an id."""
    if reference in view.tasks:
        return view.tasks[reference]
    service_name, _, place = reference.partition(".")
    service = view.service_named(service_name)
    if service is not None and place:
        there = [task for task in view.tasks_of_service(service.meta.id) if _is_at(task, place)]
        if there:
            return max(there, key=lambda task: (task.meta.created_at_ns, task.meta.id))
    return view.tasks[resolve(printable(reference), view.tasks, kind="task")]


def task_name(task: Task, service: Service | None) -> str:
    """ "web.1", or for a global service "web.NODE"; the service's id where it is gone."""
    name = service.spec.name if service is not None else task.service_id
    return f"{name}.{task.slot or task.node_id}"


def passes(filters: Iterable[tuple[str, str]], tests: Mapping[str, Test]) -> bool:
    """Docker's rule: of one key any value will do, of different keys each must; labels must all be there.

    Raises InvalidArgument for a key that is not in `tests`.
    """
    wanted: dict[str, list[str]] = {}
    for key, value in filters:
        if key not in tests:
            raise InvalidArgument(f"invalid filter '{printable(key)}'", hint=f"filter by {', '.join(sorted(tests))}")
        wanted.setdefault(key, []).append(value)
    return all(
        (all if key.endswith("label") else any)(tests[key](value) for value in values) for key, values in wanted.items()
    )


def labelled(labels: Mapping[str, str]) -> Test:
    """The test of a label filter: "KEY" or "KEY=VALUE"."""

    def test(wanted: str) -> bool:
        key, given, value = wanted.partition("=")
        return key in labels and (not given or labels[key] == value)

    return test


def begins(text: str) -> Test:
    """The test of filters that take a beginning."""
    return text.startswith


def contains(text: str) -> Test:
    """The test of filters that take a part of a name."""
    return lambda wanted: wanted in text


def is_any(*words: str) -> Test:
    """The test of filters that take a word. Case does not count."""
    return lambda wanted: wanted.lower() in words


def _is_at(task: Task, place: str) -> bool:
    where = str(task.slot or task.node_id)
    return place in (where, f"{where}.{task.meta.id}")
