"""Assigner: assignments of many nodes from one view, computing what they share once.

The agents of a thousand nodes get the same endpoint; here it is made once and kept until an event says that it may
differ. It also remembers the templates of versions that the store no longer holds while tasks of them run out, so
that an agent that reconnects meanwhile is told the same as before. Does no I/O; the dispatcher feeds it events.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from manager.dispatcher.assignment import (
    Assignment,
    TemplateKey,
    affected,
    assignment_of,
    endpoints_of,
    networks_of,
    rebalances,
    template_of,
)
from manager.store.mirror import MirrorEvent
from manager.store.view import View
from shoal.model.assignment import Template
from shoal.model.network import Endpoint, Network
from shoal.model.node import Node
from shoal.model.service import Service
from shoal.model.task import Task


class Assigner:
    def __init__(self, view: View) -> None:
        self._view = view
        self._endpoints: dict[str, tuple[Endpoint, ...]] = {}
        self._services_on: dict[str, set[str]] = {}
        self._templates: dict[TemplateKey, Template] = {}
        self.reload()

    def reload(self) -> None:
        """Forget what was computed: events were missed."""
        self._endpoints.clear()
        self._services_on.clear()
        for service in self._view.services.values():
            self._file(service)
            self._templates.pop((service.meta.id, service.task_version), None)

    def of(self, node_id: str) -> Assignment:
        """What `node_id` is to do now."""
        return assignment_of(self._view, node_id, template_for=self._template_for, endpoints_on=self._endpoints_on)

    def apply(self, event: MirrorEvent) -> set[str]:
        """Take note of an event that the view shows already; the nodes whose assignment it may have changed."""
        match event.new or event.old:
            case Service(meta=meta):
                self._endpoints.pop(meta.id, None)
                if isinstance(event.old, Service):
                    self._unfile(event.old)
                if isinstance(event.new, Service):
                    self._file(event.new)
                self._retemplate(event)
            case Task(service_id=service_id):
                if rebalances(cast("Task | None", event.old), cast("Task | None", event.new)):
                    self._endpoints.pop(service_id, None)
                if event.new is None:
                    self._forget_templates(service_id)
            case Node(meta=meta):
                for task in self._view.tasks_of_node(meta.id):
                    self._endpoints.pop(task.service_id, None)
            case Network():
                # Attachments are by name too: a network that comes or goes may be any service's.
                self.reload()
            case _:
                pass
        return affected(self._view, event.old, event.new)

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

    def _endpoints_on(self, network_id: str) -> Iterator[Endpoint]:
        for service_id in sorted(self._services_on.get(network_id, ())):
            known = self._endpoints.get(service_id)
            if known is None:
                known = self._endpoints[service_id] = endpoints_of(self._view, self._view.services[service_id])
            for endpoint in known:
                if endpoint.network_id == network_id:
                    yield endpoint

    def _file(self, service: Service) -> None:
        for network_id in networks_of(self._view, service):
            self._services_on.setdefault(network_id, set()).add(service.meta.id)

    def _unfile(self, service: Service) -> None:
        for filed in self._services_on.values():
            filed.discard(service.meta.id)
