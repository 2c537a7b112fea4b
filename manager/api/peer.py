"""ManagerService: what this manager answers to the others, and to nodes that become managers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc.aio

from manager.api.enlisting import Enlisting
from manager.dispatcher.errand import Errands, image_of
from manager.dispatcher.inventory import Inventory
from manager.dispatcher.withdrawal import Withdrawals
from shoal.errors import PermissionDenied
from shoal.tls import peer_of
from shoal.v1 import manager_pb2 as wire
from shoal.v1.manager_pb2_grpc import ManagerServiceServicer

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]


class PeerService(ManagerServiceServicer):
    def __init__(self, inventory: Inventory, errands: Errands, withdrawals: Withdrawals, enlisting: Enlisting) -> None:
        self._inventory = inventory
        self._errands = errands
        self._withdrawals = withdrawals
        self._enlisting = enlisting

    async def FindImage(self, request: wire.FindImageRequest, _context: Context) -> wire.FindImageResponse:
        found = self._inventory.locate(request.reference, request.manifest_digest)
        holders = [wire.ImageHolder(node_id=node_id, manifest_digest=digest) for node_id, digest in found]
        coming = self._errands.under_way(image_of(request.reference, request.manifest_digest))
        return wire.FindImageResponse(holders=holders, nodes=len(self._inventory), coming=coming)

    async def AwaitHere(self, request: wire.AwaitHereRequest, _context: Context) -> wire.AwaitHereResponse:
        return wire.AwaitHereResponse(withdrawn=await self._withdrawals.here(request.task_id))

    async def Enlist(self, request: wire.EnlistRequest, context: Context) -> wire.EnlistResponse:
        peer = peer_of(context)
        if peer is None:
            raise PermissionDenied("a node enlists over mutual TLS, as who it is")
        return await self._enlisting.enlist(peer.node_id, request.address)
