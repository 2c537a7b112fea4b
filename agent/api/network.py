"""NetworkService: the networks that this host knows, and those of its own making."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import grpc.aio

from agent.container.prune import chooser
from agent.network.bridge import PREDEFINED
from agent.network.networks import Networks
from shoal import codec
from shoal.errors import Conflict, NotFound
from shoal.model.network import NetworkScope, NetworkSpec
from shoal.v1 import engine_pb2 as wire
from shoal.v1 import types_pb2
from shoal.v1.engine_pb2_grpc import NetworkServiceServicer

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]


class NetworkService(NetworkServiceServicer):
    def __init__(self, networks: Networks) -> None:
        self._networks = networks

    async def ListLocalNetworks(
        self, _request: wire.ListLocalNetworksRequest, _context: Context
    ) -> wire.ListLocalNetworksResponse:
        found = self._networks.list()
        return wire.ListLocalNetworksResponse(networks=[codec.to_wire(each, types_pb2.Network) for each in found])

    async def CreateLocalNetwork(
        self, request: wire.CreateLocalNetworkRequest, _context: Context
    ) -> wire.CreateLocalNetworkResponse:
        network = await self._networks.create(codec.from_wire(request.spec, NetworkSpec))
        return wire.CreateLocalNetworkResponse(network=codec.to_wire(network, types_pb2.Network))

    async def RemoveLocalNetwork(
        self, request: wire.RemoveLocalNetworkRequest, _context: Context
    ) -> wire.RemoveLocalNetworkResponse:
        await self._networks.remove(request.network)
        return wire.RemoveLocalNetworkResponse()

    async def PruneLocalNetworks(
        self, request: wire.PruneLocalNetworksRequest, _context: Context
    ) -> wire.PruneLocalNetworksResponse:
        named = chooser([(each.key, each.value) for each in request.filters])
        removed = []
        for each in self._networks.list():
            own = each.scope == NetworkScope.LOCAL and each.spec.name not in PREDEFINED
            if own and named(each.spec.labels, each.meta.created_at_ns):
                with contextlib.suppress(Conflict, NotFound):  # somebody is on it, or was faster
                    await self._networks.remove(each.meta.id)
                    removed.append(each.spec.name)
        return wire.PruneLocalNetworksResponse(networks=removed)
