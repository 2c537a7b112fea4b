"""What may be deleted: blobs and layers that nothing in the catalog needs, and only while nothing is on its way in.

An operation that brings content in holds `working()`; the last one to end collects what all of them left. So a pull
never loses a blob between finding it here and entering it in the catalog.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from agent.image.catalog import Catalog
from agent.image.content import Content
from agent.image.snapshot import Snapshots, name_of
from agent.image.threads import Threads


class Collector:
    """Decides on the event loop, by renames; the bytes are freed in a thread."""

    def __init__(
        self, content: Content, snapshots: Snapshots, catalog: Callable[[], Catalog], *, threads: Threads
    ) -> None:
        self._content = content
        self._snapshots = snapshots
        self._catalog = catalog
        self._threads = threads
        self._working = 0

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Nothing is deleted while the block runs."""
        self._working += 1
        try:
            yield
        finally:
            self._working -= 1
            await self.sweep()

    async def sweep(self) -> None:
        """Throw away what is not needed, unless somebody is working: then they will."""
        if not self._working:
            self._collect()
        await self._threads.run(self._content.empty_trash)

    def _collect(self) -> None:
        blobs, layers = needed(self._catalog())
        for digest in self._content.digests():
            if digest not in blobs:
                self._content.discard(digest)
        for name in self._snapshots.names():
            if name not in layers:
                self._snapshots.discard(name)


def needed(catalog: Catalog) -> tuple[set[str], set[str]]:
    """Digests of the blobs and names of the layer directories that the images of `catalog` consist of, and the layers
    that builds may stand on again, with what plain layers among them are when they leave."""
    records, kept = catalog.images.values(), catalog.layers.values()
    blobs = {digest for record in records for digest in record.blobs} | {layer.digest for layer in kept}
    blobs |= {each.digest for key, each in catalog.compressed.items() if key.partition(" ")[0] in blobs}
    layers = {name_of(chain_id) for record in records for chain_id in record.chain_ids}
    return blobs, layers | {name_of(layer.chain_id) for layer in kept}
