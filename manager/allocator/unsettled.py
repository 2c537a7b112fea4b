"""Unsettled: the services that may not have all ports and addresses that they ask for. It follows the view.

Most have, always; so each is asked once, and again when it changes or one of its networks does.
"""

from __future__ import annotations

from manager.control.attachment import Attached
from manager.store.records import Noun
from manager.store.view import View
from shoal.model.network import Network
from shoal.model.service import Service


class Unsettled:
    def __init__(self, view: View) -> None:
        self._view = view
        self._attached = view.follower(Attached)
        self._ids = set(view.services)

    def changed(self, old: Noun | None, new: Noun | None) -> None:
        if isinstance(new, Service):
            self._ids.add(new.meta.id)
        elif isinstance(old, Service):
            self._ids.discard(old.meta.id)
        elif isinstance(new, Network) or isinstance(old, Network):
            self._ids |= self._attached.to(old, new)

    def services(self) -> list[Service]:
        """The oldest first."""
        services = [self._view.services[id] for id in self._ids]
        return sorted(services, key=lambda each: (each.meta.created_at_ns, each.meta.id))

    def settle(self, service: Service) -> None:
        """It has what it asks for."""
        self._ids.discard(service.meta.id)
