"""Holdings: the images that this host has just now, as the catalog and the configurations that it speaks of.

A change is on disk before it counts, and one is made at a time: who decides by the catalog what to change, decides and
saves while `changing`. Only rooms behind `images` change anything here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from agent.image import catalog as catalogs
from agent.image import document as documents
from agent.image import lookup
from agent.image import manifest as manifests
from agent.image.catalog import Catalog, Layer, Name, Record
from agent.image.content import Content, sync_filesystem
from agent.image.document import Document
from agent.image.lookup import Found
from agent.image.snapshot import Snapshots
from agent.image.threads import Threads
from shoal.broadcast import Broadcast
from shoal.model.event import Event, EventKind, Tell
from shoal.model.image import Image

log = logging.getLogger(__name__)


class Holdings:
    """The catalog in the file `path`, empty until `adopt`."""

    def __init__(self, path: Path, content: Content, snapshots: Snapshots, *, threads: Threads, tell: Tell) -> None:
        self.catalog = Catalog()
        self.changes: Broadcast[None] = Broadcast()
        self.changing = asyncio.Lock()
        self._path = path
        self._content = content
        self._snapshots = snapshots
        self._threads = threads
        self._tell = tell
        self._documents: dict[str, Document] = {}

    async def adopt(self, found: Catalog) -> None:
        """Take over what an earlier agent left: whole images stay, of the rest nothing."""
        for record in found.images.values():
            missing = [digest for digest in record.blobs if digest not in self._content]
            missing += [chain_id for chain_id in record.chain_ids if chain_id not in self._snapshots]
            if missing:
                log.warning("image %s is dropped: %s is gone from the disk", record.id, ", ".join(missing))
                found = found.without_image(record.id)
                continue
            for chain_id, size_bytes in zip(record.chain_ids, record.layer_sizes, strict=True):
                self._snapshots.learn(chain_id, size_bytes)
            self._documents[record.id] = await self._read(record)
        for layer in found.layers.values():
            if not self.has(layer):
                found = found.without_layers([layer.chain_id])
            self._snapshots.learn(layer.chain_id, layer.size_bytes)
        self.catalog = found

    def has(self, layer: Layer) -> bool:
        """Whether a layer is here, unpacked and as it goes to others."""
        return layer.chain_id in self._snapshots and layer.digest in self._content

    def find(self, reference: str) -> Found:
        """The image of a name, an id or a unique prefix of one. Raises NotFound ("No such image: x:latest")."""
        return lookup.find(self.catalog, reference)

    def document(self, image_id: str) -> Document:
        """The configuration of an image that is here."""
        return self._documents[image_id]

    def shown(self, found: Found) -> Image:
        """The image as users see it."""
        return lookup.image_of(self.catalog, found.record, self.document(found.record.id), digest=found.digest)

    async def enter(self, records: Sequence[Record], names: Mapping[str, Name]) -> None:
        """Add to the catalog; the images are there for all when this returns."""
        documents = {record.id: await self._read(record) for record in records}
        async with self.changing:
            after = self.catalog
            for record in records:
                after = after.with_image(record)
            self._documents.update(documents)
            await self.save(after.with_names(names))

    async def save(self, after: Catalog) -> None:
        """Make `after` the catalog, on disk first; only while `changing`."""
        if after == self.catalog:
            return
        fresh = after.images.keys() - self.catalog.images.keys() or after.layers.keys() - self.catalog.layers.keys()

        def write() -> None:
            if fresh:
                # Layers are plain files that nobody synced: all at once, before an image says that they are there.
                sync_filesystem(self._path.parent)
            catalogs.save(self._path, after)

        await self._threads.run(write)
        self.catalog = after
        self._documents = {key: value for key, value in self._documents.items() if key in after.images}
        self.changes.publish(None)

    def happened(self, action: str, image_id: str, name: str = "") -> None:
        """Tell whoever watches this host's events."""
        self._tell(Event(kind=EventKind.IMAGE, action=action, id=image_id, attributes={"name": name or image_id}))

    async def _read(self, record: Record) -> Document:
        def read() -> Document:
            data = self._content.read(record.id, limit_bytes=manifests.MAX_DOCUMENT_BYTES)
            return documents.parse_document(data)

        known = self._documents.get(record.id)
        return known if known is not None else await self._threads.run(read)
