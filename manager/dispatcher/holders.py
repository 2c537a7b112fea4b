"""Holders: which nodes hold an image, in the whole cluster. Each manager's inventory knows the nodes whose sessions it
holds; this asks all managers that serve, and goes without the answer of one that takes too long."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from manager.dispatcher.inventory import Inventory
from manager.store.view import View
from shoal.channels import Channels
from shoal.errors import ShoalError
from shoal.rpc import translated
from shoal.v1 import manager_pb2 as wire
from shoal.v1.manager_pb2_grpc import ManagerServiceStub

log = logging.getLogger(__name__)

# Another manager answers from its memory; who waits is a task's start, or a user.
ASK_S = 1.0
Holder = tuple[str, str]


class Holders:
    """Of the manager on the node `own_id`; `channels` leads to the others."""

    def __init__(self, inventory: Inventory, view: View, channels: Channels, *, own_id: str) -> None:
        self._inventory = inventory
        self._view = view
        self._channels = channels
        self._own_id = own_id

    async def locate(self, reference: str, manifest_digest: str) -> list[Holder]:
        """(node id, digest) of who holds the image, by node id."""
        others = [each.address for id, each in self._view.managers.items() if id != self._own_id]
        answers = await asyncio.gather(*(self._ask(other, reference, manifest_digest) for other in others))
        found = self._inventory.locate(reference, manifest_digest)
        return sorted({node_id: digest for part in (*answers, found) for node_id, digest in part}.items())

    async def digest_of(self, reference: str) -> str:
        """What `reference` stands for: on this node if that holds it, else where most agree; empty when nobody holds
        it. Ties break by digest."""
        held = dict(await self.locate(reference, ""))
        if self._own_id in held:
            return held[self._own_id]
        digests = list(held.values())
        return max(set(digests), key=lambda digest: (digests.count(digest), digest), default="")

    async def _ask(self, address: str, reference: str, manifest_digest: str) -> Sequence[Holder]:
        stub = ManagerServiceStub(self._channels.to(address))
        request = wire.FindImageRequest(reference=reference, manifest_digest=manifest_digest)
        try:
            with translated():
                answer = await stub.FindImage(request, timeout=ASK_S)
        except ShoalError as error:
            log.info("the manager at %s does not say who holds an image: %s", address, error)
            return ()
        return [(each.node_id, each.manifest_digest) for each in answer.holders]
