"""Holders: which nodes hold an image, in the whole cluster. Each manager's inventory knows the nodes whose sessions it
holds; this asks all managers that serve, and goes without the answer of one that takes too long. Who asks for a task
(`locate_surely`) hears then, and while a node has not come back, that nobody can say yet.
"""

from __future__ import annotations

import asyncio
import logging

import msgspec

from manager.dispatcher.inventory import Inventory
from manager.store.view import View
from shoal.channels import Channels
from shoal.errors import ShoalError, Unavailable
from shoal.model.node import NodeState
from shoal.rpc import translated
from shoal.v1 import manager_pb2 as wire
from shoal.v1.manager_pb2_grpc import ManagerServiceStub

log = logging.getLogger(__name__)

# Another manager answers from its memory; who waits is a task's start, or a user.
ASK_S = 1.0
Holder = tuple[str, str]


class Found(msgspec.Struct, frozen=True):
    """(node id, digest) of who holds an image, how many nodes were looked at, and whether one of another manager's
    is on the way to the registry."""

    holders: list[Holder] = []
    nodes: int = 0
    coming: bool = False


class Holders:
    """Of the manager on the node `own_id`; `channels` leads to the others."""

    def __init__(self, inventory: Inventory, view: View, channels: Channels, *, own_id: str) -> None:
        self._inventory = inventory
        self._view = view
        self._channels = channels
        self._own_id = own_id

    async def locate(self, reference: str, manifest_digest: str) -> list[Holder]:
        """(node id, digest) of who holds the image, by node id."""
        return (await self._find(reference, manifest_digest)).holders

    async def locate_surely(self, reference: str, manifest_digest: str) -> Found:
        """As `locate`, and whether it comes. Raises Unavailable where nobody is known to hold the image and a node that
        may has not said yet what it holds: one that is not known to be down, or, of an image that the cluster has
        pinned, any."""
        found = await self._find(reference, manifest_digest)
        nodes = self._view.nodes.values()
        awaited = [node for node in nodes if manifest_digest or node.status.state is not NodeState.DOWN]
        if not found.holders and not found.coming and found.nodes < len(awaited):
            silent = len(awaited) - found.nodes
            raise Unavailable(f"{silent} of {len(awaited)} nodes have not said whether they have it")
        return found

    async def digest_of(self, reference: str) -> str:
        """What `reference` stands for: on this node if that holds it, else where most agree; empty when nobody holds
        it. Ties break by digest."""
        held = dict(await self.locate(reference, ""))
        if self._own_id in held:
            return held[self._own_id]
        digests = list(held.values())
        return max(set(digests), key=lambda digest: (digests.count(digest), digest), default="")

    async def _find(self, reference: str, manifest_digest: str) -> Found:
        others = [each.address for id, each in self._view.managers.items() if id != self._own_id]
        answers = await asyncio.gather(*(self._ask(other, reference, manifest_digest) for other in others))
        own = Found(self._inventory.locate(reference, manifest_digest), len(self._inventory))
        holders = {node_id: digest for part in (*answers, own) for node_id, digest in part.holders}
        nodes = own.nodes + sum(part.nodes for part in answers)
        return Found(sorted(holders.items()), nodes, any(part.coming for part in answers))

    async def _ask(self, address: str, reference: str, manifest_digest: str) -> Found:
        stub = ManagerServiceStub(self._channels.to(address))
        request = wire.FindImageRequest(reference=reference, manifest_digest=manifest_digest)
        try:
            with translated():
                answer = await stub.FindImage(request, timeout=ASK_S)
        except ShoalError as error:
            log.info("the manager at %s does not say who holds an image: %s", address, error)
            return Found()
        return Found([(each.node_id, each.manifest_digest) for each in answer.holders], answer.nodes, answer.coming)
