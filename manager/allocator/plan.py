"""The plan: VNIs and subnets for networks, addresses and ports for services, and NEW tasks on to PENDING.

One key for all, because all draw from the same pools. What cannot be given is said in the status message of the
tasks that wait for it. Nodes' blocks are `lease`'s part.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from manager.allocator import port, subnet, vip, vni
from manager.allocator.unsettled import Unsettled
from manager.control import attachment
from manager.control.action import Action, change, create
from manager.control.controller import NOTHING, Decision, Mint
from manager.store.mirror import MirrorEvent
from manager.store.view import View
from shoal.errors import Exhausted
from shoal.model.base import Meta
from shoal.model.cluster import Cluster
from shoal.model.network import Network, NetworkScope, NetworkSpec, Port, PortProtocol, PublishMode
from shoal.model.node import Node
from shoal.model.service import EndpointMode, Service, VirtualAddress
from shoal.model.task import Task, TaskState

name = "allocator"
kinds = frozenset({"cluster", "network", "node", "service", "task"})


def keys_for(event: MirrorEvent, view: View) -> Iterable[str]:  # noqa: ARG001
    new = event.new
    if event.kind == "node":
        return ("cluster",) if _address(event.old) != _address(new) else ()
    if isinstance(new, Task) and new.status.state != TaskState.NEW:
        return ()
    return () if event.kind == "task" and new is None else ("cluster",)


def reconcile(view: View, key: str, now_ns: int, mint: Mint) -> Decision:  # noqa: ARG001
    """Networks first: their services are looked at again once these are written."""
    if view.cluster is None:
        return NOTHING
    if attachment.ingress(view) is None:
        return Decision((create(_ingress(mint(), now_ns), "every cluster has one network for published ports"),))
    actions, refused = _networks(view, view.cluster)
    if actions:
        return Decision(tuple(actions))
    actions, starved = _services(view)
    return Decision((*actions, *_tasks(view, refused | starved, now_ns)))


def _address(node: object) -> str:
    return node.description.address if isinstance(node, Node) else ""


def _ingress(id: str, now_ns: int) -> Network:
    return Network(
        meta=Meta(id=id, created_at_ns=now_ns, updated_at_ns=now_ns),
        spec=NetworkSpec(name="ingress", driver="overlay", ingress=True),
        scope=NetworkScope.SWARM,
    )


def _networks(view: View, cluster: Cluster) -> tuple[list[Action], dict[str, str]]:
    """Subnets and VNIs for those that have none, the ingress network first; and why some get none."""
    overlays = [each for each in view.networks.values() if each.scope == NetworkScope.SWARM]
    waiting = [each for each in overlays if not each.vni or not each.subnet or not each.block_prefix]
    if not waiting:
        return [], {}
    numbers = vni.free({each.vni for each in overlays})
    taken = [each.subnet for each in view.networks.values() if each.subnet]
    # What users ask for by number comes first, so that the pool does not give it to another one.
    taken += [each.spec.subnet for each in waiting if each.spec.subnet]
    # Hosts often have addresses of the pool (10.0.0.0/8): a network over them would cut them off.
    hosts = [address for node in view.nodes.values() if (address := _address(node))]
    taken += hosts
    subnets = subnet.free(cluster.spec.address_pool, cluster.spec.address_pool_prefix, taken)
    actions: list[Action] = []
    refused: dict[str, str] = {}
    for network in sorted(waiting, key=lambda each: (not each.spec.ingress, each.meta.created_at_ns, each.meta.id)):
        chosen = network.subnet or network.spec.subnet
        if not chosen:
            if view.nodes and not hosts:
                refused[network.meta.id] = f"no subnet for network {network.spec.name}: no node has told its address"
                continue
            found = next(subnets, None)
            if found is None:
                pool = f"{cluster.spec.address_pool} in parts of /{cluster.spec.address_pool_prefix}"
                refused[network.meta.id] = f"no subnet for network {network.spec.name}: the pool {pool} is used up"
                continue
            chosen = str(found)
        given = msgspec.structs.replace(
            network,
            vni=network.vni or next(numbers),
            subnet=chosen,
            block_prefix=network.block_prefix or subnet.block_prefix(chosen),
        )
        actions.append(change(given, f"network {network.spec.name} gets {chosen}"))
    return actions, refused


def _services(view: View) -> tuple[list[Action], dict[str, str]]:
    """Ports and addresses as their specs ask; and why some do not get them."""
    actions: list[Action] = []
    refused: dict[str, str] = {}
    ports: set[tuple[PortProtocol, int]] | None = None
    addresses = _Addresses(view)
    unsettled = view.follower(Unsettled)
    for service in unsettled.services():
        if not _unsettled(view, service):
            unsettled.settle(service)
            continue
        if ports is None:
            ports = {*port.taken(view.services.values())}
        try:
            given_ports = port.allocate(service, ports)
            given_addresses = tuple(addresses.of(service))
        except Exhausted as error:
            refused[service.meta.id] = error.message
            continue
        ports |= {(each.protocol, each.published) for each in given_ports}
        if given_ports != service.ports or given_addresses != service.addresses:
            given = msgspec.structs.replace(service, ports=given_ports, addresses=given_addresses)
            actions.append(change(given, f"service {service.spec.name} gets its ports and addresses"))
    return actions, refused


def _unsettled(view: View, service: Service) -> bool:
    """Whether what it has may differ from what its spec asks for."""
    wanted = _balanced(view, service)
    if [each.network_id for each in service.addresses] != [each.meta.id for each in wanted]:
        return True
    if len(service.ports) != len(service.spec.ports):
        return True
    return any(not _as_asked(*pair) for pair in zip(service.spec.ports, service.ports, strict=True))


def _as_asked(wanted: Port, given: Port) -> bool:
    if wanted == given:
        return wanted.mode == PublishMode.HOST or bool(given.published)
    return wanted == msgspec.structs.replace(given, published=wanted.published) and not wanted.published


def _balanced(view: View, service: Service) -> tuple[Network, ...]:
    """The networks on which it needs an address of its own, as far as they have subnets."""
    if service.spec.endpoint_mode != EndpointMode.VIP:
        return ()
    return tuple(each for each in attachment.overlays_of(view, service) if each.subnet)


class _Addresses:
    """Service addresses while a plan is being made: what it gives is not given again."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._taken: dict[str, set[str]] = {}
        self._free: dict[str, Iterator[str]] = {}

    def of(self, service: Service) -> Iterator[VirtualAddress]:
        """Those it has, and new ones. Raises Exhausted."""
        had = {address.network_id: address for address in service.addresses}
        for network in _balanced(self._view, service):
            yield had.get(network.meta.id) or VirtualAddress(network.meta.id, self._next(network))

    def _next(self, network: Network) -> str:
        id = network.meta.id
        if id not in self._free:
            taken = vip.taken_in(id, self._view.services.values())
            self._free[id] = vip.free(network, taken, self._view.leases_of_network(id))
        address = next(self._free[id], None)
        if address is None:
            raise Exhausted(f"no free address for a service on network {network.spec.name} ({network.subnet})")
        return address


def _tasks(view: View, refused: dict[str, str], now_ns: int) -> Iterator[Action]:
    """Those whose service has all it needs become PENDING; the others learn what they wait for."""
    waiting: dict[str, list[Task]] = {}
    for task in view.tasks_new():
        waiting.setdefault(task.service_id, []).append(task)
    for service_id, tasks in waiting.items():
        service = view.services.get(service_id)
        if service is None:
            continue
        lacking = attachment.lacking(view, service)
        networks = (refused.get(each.meta.id, "") for each in attachment.overlays_of(view, service))
        why = lacking and (refused.get(service_id) or next(filter(None, networks), lacking))
        state = TaskState.NEW if lacking else TaskState.PENDING
        for task in tasks:
            if task.status.state == state and task.status.message == why:
                continue
            status = msgspec.structs.replace(task.status, state=state, message=why, at_ns=now_ns)
            yield change(msgspec.structs.replace(task, status=status), why or "its service has what it needs")
