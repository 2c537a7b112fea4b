"""Assigner: what every node is to be told, from one view, computing what many share once.

It keeps the bulletins of networks, and the templates of versions: also of those that the store no longer holds while
tasks of them run out, so that an agent that reconnects meanwhile is told the same as before. Does no I/O; the
dispatcher feeds it events.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from manager.dispatcher.assignment import Assignment, TemplateKey, affected, assignment_of, template_of
from manager.dispatcher.bulletin import Bulletin
from manager.dispatcher.reach import networks_of, rebalances, seen_by_others
from manager.store.mirror import MirrorEvent
from manager.store.view import View
from shoal.model.assignment import Template
from shoal.model.network import Lease, Network
from shoal.model.node import Node
from shoal.model.service import Service
from shoal.model.task import Task


class Assigner:
    def __init__(self, view: View) -> None:
        self._view = view
        self._bulletins: dict[str, Bulletin] = {}
        # Up to where `settle` has said who has news to hear.
        self._announced: dict[str, int] = {}
        self._templates: dict[TemplateKey, Template] = {}

    def reload(self) -> None:
        """Events were missed, or one that may mean anything: look at everything again."""
        for bulletin in self._bulletins.values():
            bulletin.touch_all()
        for service in self._view.services.values():
            self._templates.pop((service.meta.id, service.task_version), None)

    def of(self, node_id: str) -> Assignment:
        """What `node_id` alone is to do now."""
        return assignment_of(self._view, node_id, template_for=self._template_for)

    def bulletin(self, network_id: str) -> Bulletin:
        """What all nodes of a network are told, settled."""
        bulletin = self._bulletins.get(network_id)
        if bulletin is None:
            bulletin = self._bulletins[network_id] = Bulletin(self._view, network_id)
        bulletin.settle()
        return bulletin

    def settle(self) -> set[str]:
        """Bring all bulletins up to date; the nodes that have news to hear from one, whoever settled it meanwhile."""
        nodes: set[str] = set()
        for network_id, bulletin in list(self._bulletins.items()):
            bulletin.settle()
            if self._announced.get(network_id, 0) != bulletin.position:
                self._announced[network_id] = bulletin.position
                nodes |= {lease.node_id for lease in self._view.leases_of_network(network_id)}
            if network_id not in self._view.networks and not self._view.leases_of_network(network_id):
                del self._bulletins[network_id]
                self._announced.pop(network_id, None)  # nothing was, of one that was asked for when all was over
        return nodes

    def apply(self, event: MirrorEvent) -> set[str]:
        """Take note of an event that the view shows already; the nodes whose own assignment it may have changed."""
        match event.new or event.old:
            case Service():
                self._touch_service(cast("Service | None", event.old), cast("Service | None", event.new))
                self._retemplate(event)
            case Task() as task:
                if rebalances(cast("Task | None", event.old), cast("Task | None", event.new)):
                    self._touch_backends([task])
                if event.new is None:
                    self._forget_templates(task.service_id)
            case Node(meta=meta):
                if seen_by_others(event.old) != seen_by_others(event.new):
                    for lease in self._view.leases_of_node(meta.id):
                        self._touch(lease.network_id, ("peer", meta.id))
                    self._touch_backends(self._view.tasks_of_node(meta.id))
            case Lease(network_id=network_id, node_id=node_id):
                self._touch(network_id, ("peer", node_id))
            case Network():
                # Attachments are by name too: a network that comes or goes may be any service's.
                self.reload()
            case _:
                pass
        return affected(self._view, event.old, event.new)

    def _touch_service(self, old: Service | None, new: Service | None) -> None:
        before, after = (networks_of(self._view, each) if each is not None else set() for each in (old, new))
        service = cast("Service", new or old)
        for network_id in before | after:
            self._touch(network_id, ("endpoint", service.meta.id))
        if before != after:
            tasks = self._view.tasks_of_service(service.meta.id)
            for network_id in before ^ after:
                self._touch(network_id, *(("backend", service.meta.id, task.meta.id) for task in tasks))

    def _touch_backends(self, tasks: Iterable[Task]) -> None:
        for task in tasks:
            service = self._view.services.get(task.service_id)
            for network_id in networks_of(self._view, service) if service is not None else ():
                self._touch(network_id, ("backend", task.service_id, task.meta.id))

    def _touch(self, network_id: str, *keys: tuple[str, ...]) -> None:
        if bulletin := self._bulletins.get(network_id):
            bulletin.touch(*keys)

    def _template_for(self, task: Task) -> Template:
        key = (task.service_id, task.task_version)
        known = self._templates.get(key)
        if known is None:
            known = self._templates[key] = template_of(self._view, *key)
        return known

    def _retemplate(self, event: MirrorEvent) -> None:
        """The present version's template follows its service; older ones stay as they were sent."""
        if isinstance(event.new, Service):
            self._templates.pop((event.id, event.new.task_version), None)
        self._forget_templates(event.id)

    def _forget_templates(self, service_id: str) -> None:
        if not self._view.tasks_of_service(service_id):
            for key in [key for key in self._templates if key[0] == service_id]:
                del self._templates[key]
