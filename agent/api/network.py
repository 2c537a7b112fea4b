"""NetworkService: the networks that this host knows, and those of its own making."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc.aio

from agent.network.networks import Networks
from shoal import codec
from shoal.model.network import NetworkSpec
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
