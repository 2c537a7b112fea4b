"""Workbench: what a build stands on, and what it leaves: images that are here, fresh layers, images of them.

`fresh` makes the layers; what this enters in the catalog stays, as an image or as layers for builds to come.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence

from agent.image.catalog import Layer, Name
from agent.image.contents import Asked
from agent.image.document import Document
from agent.image.fresh import FreshLayers
from agent.image.gc import Collector
from agent.image.holdings import Holdings
from agent.image.outgoing import Outgoing
from shoal.reference import Reference


class Workbench:
    """`fresh` and, with the catalog, what becomes of it. All that changes something only while `Images.working`."""

    def __init__(self, fresh: FreshLayers, holdings: Holdings, outgoing: Outgoing, collector: Collector) -> None:
        self.fresh = fresh
        self._holdings = holdings
        self._outgoing = outgoing
        self._collector = collector

    async def base(self, reference: str) -> tuple[Document, tuple[Layer, ...]]:
        """What a build stands on: an image that is here. Raises NotFound."""
        record = self._holdings.find(reference).record
        document = self._holdings.document(record.id)
        return document, await self.fresh.of(record, document)

    async def built(self, document: Document, layers: Sequence[Layer], tags: Sequence[Reference]) -> str:
        """The image of fresh layers, entered under `tags`; its id."""
        record = await self.fresh.image(document, layers, self._holdings.catalog.images)
        await self._holdings.enter([record], {tag.key: Name(record.id, record.digest) for tag in tags})
        for tag in tags:
            self._holdings.happened("tag", record.id, tag.familiar)
        return record.id

    async def archived(
        self, document: Document, layers: Sequence[Layer], tags: Sequence[Reference]
    ) -> tuple[AsyncGenerator[bytes, None], str]:
        """The image as `save` has it, which is not entered here; and its id."""
        record = await self.fresh.image(document, layers, self._holdings.catalog.images)
        return self._outgoing.archive([(Asked(record, tuple(tags)), document)]), record.id

    def has(self, layer: Layer) -> bool:
        """Whether a layer is still here."""
        return self._holdings.has(layer)

    def in_image(self, layer: Layer) -> bool:
        """Whether an image has this layer."""
        return any(layer.chain_id in record.chain_ids for record in self._holdings.catalog.images.values())

    def blob(self, layer: Layer) -> AsyncGenerator[bytes, None]:
        """A layer that is here, as it goes to others."""
        return self._outgoing.content(layer.digest)

    async def keep(self, layers: Collection[Layer]) -> None:
        """They stay, whether an image has them or not, until `drop`."""
        async with self._holdings.changing:
            await self._holdings.save(self._holdings.catalog.with_layers(layers))

    async def drop(self, chain_ids: Collection[str]) -> None:
        async with self._holdings.changing:
            await self._holdings.save(self._holdings.catalog.without_layers(chain_ids))
        await self._collector.sweep()

    def kept(self) -> Mapping[str, Layer]:
        """By chain id."""
        return self._holdings.catalog.layers
