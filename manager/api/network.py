"""Calls on the cluster's networks. Their addresses are the allocator's business."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc.aio

from manager.allocator import subnet
from manager.api.find import begins, contains, is_any, labelled, network_of, passes
from manager.api.room import Room, creating, pairs, removing
from manager.store import base
from manager.store.base import Guard, Txn
from manager.store.records import key_for
from shoal.codec import from_wire, to_wire
from shoal.errors import Conflict, InvalidArgument
from shoal.ids import new_id
from shoal.model.base import Meta
from shoal.model.network import Network, NetworkScope, NetworkSpec
from shoal.names import check_name
from shoal.v1 import control_pb2 as wire
from shoal.v1 import types_pb2

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

_RESERVED = frozenset({"bridge", "host", "none", "default"})
_ALLOCATED_S = 5.0
_LOOK_S = 0.01


class NetworkCalls:
    _room: Room

    async def CreateNetwork(self, request: wire.CreateNetworkRequest, _context: Context) -> wire.CreateNetworkResponse:
        """Answers once the network has its addresses, or cannot have any."""
        spec = from_wire(request.spec, NetworkSpec)
        self._check(spec)
        now_ns = self._room.clock.now_ns()
        network = Network(
            meta=Meta(id=new_id(), created_at_ns=now_ns, updated_at_ns=now_ns), spec=spec, scope=NetworkScope.SWARM
        )
        try:
            await self._room.write(creating(network))
        except base.Conflict as error:
            raise _exists(spec.name) from error
        deadline = self._room.clock.monotonic() + _ALLOCATED_S
        while (made := self._network(network.meta.id)).subnet == "" and self._room.clock.monotonic() < deadline:
            await self._room.clock.sleep(_LOOK_S)
        return wire.CreateNetworkResponse(network=to_wire(made, types_pb2.Network))

    async def GetNetwork(self, request: wire.GetNetworkRequest, _context: Context) -> wire.GetNetworkResponse:
        return wire.GetNetworkResponse(network=to_wire(self._network(request.network), types_pb2.Network))

    async def ListNetworks(self, request: wire.ListNetworksRequest, _context: Context) -> wire.ListNetworksResponse:
        filters = pairs(request.filters)
        passes(filters, _tests(Network()))
        found = [network for network in self._room.mirror.networks.values() if passes(filters, _tests(network))]
        found.sort(key=lambda network: network.spec.name)
        return wire.ListNetworksResponse(networks=[to_wire(network, types_pb2.Network) for network in found])

    async def RemoveNetwork(self, request: wire.RemoveNetworkRequest, _context: Context) -> wire.RemoveNetworkResponse:
        id = self._network(request.network).meta.id

        def attempt() -> Txn:
            network = self._network(id)
            if network.spec.ingress:
                raise Conflict("the ingress network carries published ports and cannot be removed")
            users = [
                service.spec.name
                for service in self._room.mirror.services.values()
                if any(each.network in (id, network.spec.name) for each in service.spec.task.networks)
            ]
            if users:
                raise Conflict(f"network {network.spec.name} is in use by service {users[0]}", hint="remove that first")
            leases = self._room.mirror.leases_of_network(id)
            return removing(network, [Guard(key_for(lease), lease.meta.version) for lease in leases][:100])

        await self._room.change(attempt)
        return wire.RemoveNetworkResponse()

    def _network(self, reference: str) -> Network:
        return network_of(self._room.mirror, reference)

    def _check(self, spec: NetworkSpec) -> None:
        check_name(spec.name, "network")
        if spec.name in _RESERVED:
            raise InvalidArgument(f"operation is not permitted on predefined {spec.name} network")
        if spec.driver != "overlay":
            raise InvalidArgument(f"a network of the cluster is an overlay, not {spec.driver or 'of no driver'}")
        if spec.ingress:
            raise InvalidArgument("there is one ingress network, which the cluster makes itself")
        if self._room.mirror.network_named(spec.name) is not None:
            raise _exists(spec.name)
        if spec.subnet and (other := subnet.overlap(self._room.mirror.networks.values(), spec.subnet)):
            raise Conflict(f"subnet {spec.subnet} overlaps with that of network {other.spec.name} ({other.subnet})")
        if spec.subnet and (node := subnet.host_inside(self._room.mirror.nodes.values(), spec.subnet)):
            raise Conflict(
                f"subnet {spec.subnet} has the address of node {node.description.hostname}"
                f" ({node.description.address})",
                hint="choose another with --subnet",
            )


def _exists(name: str) -> Conflict:
    return Conflict(f"network with name {name} already exists")


def _tests(network: Network) -> dict[str, Any]:
    return {
        "id": begins(network.meta.id),
        "name": contains(network.spec.name),
        "driver": is_any(network.spec.driver),
        "label": labelled(network.spec.labels),
        "scope": is_any("swarm"),
    }
