"""Attachment: which overlays a service stands on, and whether it has what its tasks need before they run.

What the allocator gives, the orchestrator and the scheduler ask for here; they do not know each other.
"""

from __future__ import annotations

from manager.store.records import Noun
from manager.store.view import View
from shoal.model.network import Network, NetworkScope, PublishMode
from shoal.model.service import EndpointMode, Service, ServiceSpec

# What a container's network may be called that is nobody's record: the host's own kinds.
_LOCAL = frozenset({"bridge", "host", "none", "default"})
_INGRESS = ""  # stands for the network that is not named: who publishes a port stands on it


class Attached:
    """Services by the words for the networks that they stand on, or stood on before their last update. It follows the
    view."""

    def __init__(self, view: View) -> None:
        self._by_word: dict[str, dict[str, None]] = {}
        for service in view.services.values():
            self.changed(None, service)

    def changed(self, old: Noun | None, new: Noun | None) -> None:
        if isinstance(old, Service):
            for word in _words(old):
                self._by_word[word].pop(old.meta.id)
                if not self._by_word[word]:
                    del self._by_word[word]
        if isinstance(new, Service):
            for word in _words(new):
                self._by_word.setdefault(word, {})[new.meta.id] = None

    def to(self, *networks: Noun | None) -> set[str]:
        """The ids of services that may mean one of these."""
        words = set()
        for network in networks:
            if isinstance(network, Network):
                words |= {network.meta.id, network.spec.name} | ({_INGRESS} if network.spec.ingress else set())
        return {id for word in words for id in self._by_word.get(word, ())}


def publishes(service: Service) -> bool:
    """Whether every host answers for one of its ports."""
    return _publishes(service.spec)


def ingress(view: View) -> Network | None:
    """The network that every host answers on for published ports."""
    return next((each for each in view.networks.values() if each.spec.ingress), None)


def overlays_of(view: View, service: Service) -> tuple[Network, ...]:
    """The overlays that its tasks join: those of its spec, in order, and the ingress network if it publishes."""
    if not service.spec.task.networks and not publishes(service):
        return ()
    own = [view.network(each.network) for each in service.spec.task.networks]
    if publishes(service):
        own.append(ingress(view))
    found = dict.fromkeys(each.meta.id for each in own if each and each.scope == NetworkScope.SWARM)
    return tuple(view.networks[id] for id in found)


def lacking(view: View, service: Service) -> str:
    """What its tasks must wait for, in words; empty when there is nothing."""
    for each in service.spec.task.networks:
        word = each.network
        if word not in _LOCAL and not word.startswith("container:") and view.network(word) is None:
            return f"network {word} does not exist"
    overlays = overlays_of(view, service)
    if publishes(service) and ingress(view) is None:
        return "there is no ingress network yet"
    for network in overlays:
        if not network.vni or not network.subnet:
            return f"network {network.spec.name} has no subnet yet"
    if service.spec.endpoint_mode == EndpointMode.VIP:
        have = {address.network_id for address in service.addresses}
        for network in overlays:
            if network.meta.id not in have:
                return f"no address for service {service.spec.name} on network {network.spec.name} yet"
    if len(service.ports) != len(service.spec.ports) or any(
        port.mode == PublishMode.INGRESS and not port.published for port in service.ports
    ):
        return f"no published port for service {service.spec.name} yet"
    return ""


def _words(service: Service) -> set[str]:
    """Those of the version before too: its tasks may still run."""
    specs = [service.spec, *([service.outgoing] if service.outgoing else [])]
    named = {each.network for spec in specs for each in spec.task.networks}
    return named | {_INGRESS} if any(map(_publishes, specs)) else named


def _publishes(spec: ServiceSpec) -> bool:
    return any(port.mode == PublishMode.INGRESS for port in spec.ports)
