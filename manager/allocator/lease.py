"""Leases: which block of an overlay each node hands addresses out of.

A node takes part in a network when it was sent a task of it; in the ingress network as soon as any service publishes
a port, because each host answers for it: before that, ten thousand nodes need not know of each other. Its lease stays
while a task of the network is recorded on the node, so that addresses of a host that cannot be heard are not given
to another one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network

from manager.allocator import subnet, vip
from manager.control import attachment
from manager.control.action import Action, create, delete
from manager.control.controller import NOTHING, Decision, Mint
from manager.store.mirror import MirrorEvent
from manager.store.records import lease_id
from manager.store.view import View
from shoal.model.base import Meta
from shoal.model.network import Lease, Network, NetworkScope
from shoal.model.node import NodeState
from shoal.model.service import Service
from shoal.model.task import Task, TaskState

name = "leases"
kinds = frozenset({"network", "node", "service", "task"})

# In a network with this many blocks or more (bits), a node gets four at once while half of it is free: room for
# 250 containers a host in a small cluster, and for 600 hosts in a large one.
_LARGE = 8
_FOUR = 2


def keys_for(event: MirrorEvent, view: View) -> Iterable[str]:
    """The networks that an event may give another member."""
    if event.kind == "network":
        return (event.id,)
    if event.kind == "node":
        return [id for id, network in view.networks.items() if network.scope == NetworkScope.SWARM]
    if isinstance(event.old or event.new, Task):
        return _of_task(event, view)
    services = [each for each in (event.old, event.new) if isinstance(each, Service)]
    return {network.meta.id for service in services for network in attachment.overlays_of(view, service)}


def reconcile(view: View, key: str, now_ns: int, mint: Mint) -> Decision:  # noqa: ARG001
    network = view.networks.get(key)
    leases = {lease.node_id: lease for lease in view.leases_of_network(key)}
    if network is None:
        return Decision(tuple(delete(lease, "its network is gone") for lease in leases.values()))
    if network.scope != NetworkScope.SWARM or not network.subnet:
        return NOTHING
    wanted, recorded = _members(view, network)
    gone = [lease for id, lease in leases.items() if id not in wanted and id not in recorded]
    kept = [lease for lease in leases.values() if lease not in gone]
    actions: list[Action] = [delete(lease, "its node has no task of this network") for lease in gone]
    blocks = _blocks(view, network, [*kept, *gone])
    for node_id in wanted:
        if node_id not in leases and (block := next(blocks, None)):
            lease = Lease(
                meta=Meta(id=lease_id(key, node_id), created_at_ns=now_ns, updated_at_ns=now_ns),
                network_id=key,
                node_id=node_id,
                block=str(block),
            )
            actions.append(create(lease, "its node takes part in this network"))
    return Decision(tuple(actions))


def _of_task(event: MirrorEvent, view: View) -> Iterable[str]:
    """A task counts when it comes to a node, and when it is forgotten."""
    old, new = event.old, event.new
    task = new if isinstance(new, Task) else old
    if not isinstance(task, Task) or not task.node_id:
        return ()
    if isinstance(new, Task) and (not _sent(new) or (isinstance(old, Task) and _sent(old))):
        return ()
    service = view.services.get(task.service_id)
    if service is not None:
        return [network.meta.id for network in attachment.overlays_of(view, service)]
    return [lease.network_id for lease in view.leases_of_node(task.node_id)]


def _members(view: View, network: Network) -> tuple[list[str], set[str]]:
    """The nodes that need a block, those with tasks first; and those that have a record of a task.

    Of a service that is gone nobody knows the networks: its tasks count for all.
    """
    running: set[str] = set()
    recorded: set[str] = set()
    attached = view.follower(attachment.Attached).to(network)
    services = [view.services[id] for id in attached]
    on_it = {each.meta.id for each in services if network in attachment.overlays_of(view, each)}
    gone = view.services_gone()
    for service_id in on_it | gone:
        for task in filter(_sent, view.tasks_of_service(service_id)):
            recorded.add(task.node_id)
            if service_id in on_it and not task.finished:
                running.add(task.node_id)
    running &= view.nodes.keys()
    if not network.spec.ingress:
        return sorted(running), recorded & view.nodes.keys()
    if not any(map(attachment.publishes, services)):
        return sorted(running), set(view.nodes)
    ready = {id for id, node in view.nodes.items() if node.status.state == NodeState.READY}
    return [*sorted(running), *sorted(ready - running)], set(view.nodes)


def _sent(task: Task) -> bool:
    return task.status.state >= TaskState.ASSIGNED and bool(task.node_id)


def _blocks(view: View, network: Network, leases: Iterable[Lease]) -> Iterator[IPv4Network]:
    """Blocks that neither a node nor a service address is in, in the order to give them out."""
    whole = IPv4Network(network.subnet)
    taken = [IPv4Network(lease.block) for lease in leases]
    taken += vip.blocks_of(network, vip.taken_in(network.meta.id, view.services.values()))
    size = network.block_prefix
    if size - whole.prefixlen >= _LARGE:
        room = whole.num_addresses // 2 - sum(each.num_addresses for each in taken)
        for block in subnet.gaps(whole, size - _FOUR, taken):
            if room < block.num_addresses:
                break
            room -= block.num_addresses
            taken.append(block)
            yield block
    yield from subnet.gaps(whole, size, taken)
