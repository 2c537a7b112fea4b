"""Layers that are made on this host, one on top of the other, and the images of them: for builds.

A fresh layer is like one that was fetched: its folder under its chain id, its archive under its digest. The archive is
plain, so its digest is the diff id, and one look at the bytes is enough. Nothing is entered in the catalog here: until
`images` does that, all of it is garbage, which lives as long as the work it belongs to (`Images.building`).
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import msgspec

from agent.image import document as documents
from agent.image import layer
from agent.image import manifest as manifests
from agent.image import platform as platforms
from agent.image.archive import Nothing
from agent.image.catalog import Layer, Record
from agent.image.content import Content
from agent.image.document import Document
from agent.image.layer import Place
from agent.image.manifest import Descriptor
from agent.image.platform import Platform
from agent.image.pull import Puller, Target, at_hand
from agent.image.snapshot import Snapshots
from agent.image.source import BlobSource
from agent.image.threads import Threads
from shoal import digest as digests
from shoal.errors import InvalidArgument
from shoal.model.image import ImageConfig


class Making(msgspec.Struct, frozen=True):
    """One line of an image's history; `empty`: it made no layer."""

    created_by: str
    created_at_ns: int
    empty: bool
    comment: str = ""


class FreshLayers:
    def __init__(self, content: Content, snapshots: Snapshots, puller: Puller, *, threads: Threads) -> None:
        self._content = content
        self._snapshots = snapshots
        self._puller = puller
        self._threads = threads

    async def of(self, record: Record, document: Document) -> tuple[Layer, ...]:
        """The layers of an image that is here, bottom first."""
        manifest, _ = await self._puller.manifest(record, document)
        told = zip(manifest.layers, record.diff_ids, record.chain_ids, record.layer_sizes, strict=True)
        return tuple(
            Layer(diff_id, chain_id, each.digest, each.media_type, each.size, size_bytes)
            for each, diff_id, chain_id, size_bytes in told
        )

    @asynccontextmanager
    async def placing(self, below: Sequence[str]) -> AsyncIterator[Place]:
        """Folders for one more layer on the chain ids `below`, bottom first; what was not kept of them goes."""
        making = self._snapshots.step(below)
        place = await self._threads.run(making.__enter__)
        try:
            yield place
        finally:
            await self._threads.run(lambda: making.__exit__(None, None, None))

    def folders(self, below: Sequence[str]) -> tuple[str, ...]:
        """The layers' folders, top first: overlayfs' lowerdirs."""
        return tuple(self._snapshots.path(chain_id) for chain_id in reversed(below))

    def alone(self, key: str) -> AbstractAsyncContextManager[None]:
        """One at a time per key."""
        return self._content.alone(key)

    def taken(self, key: str) -> bool:
        """Whether somebody has it alone just now."""
        return self._content.taken(key)

    def sweep(self) -> None:
        """Throw away what an interrupted agent left. Blocks."""
        self._snapshots.sweep_steps()

    async def keep(self, place: Place, below: Sequence[str], *, epoch: int | None) -> Layer:
        """What was written to `place.upper` is a layer from now on. With `epoch`, no file in it is younger than that
        second. Raises Exhausted when the disk is full."""
        stop = threading.Event()
        return await self._threads.run(lambda: self._keep(place, below, epoch, stop), stop=stop.set)

    def _keep(self, place: Place, below: Sequence[str], epoch: int | None, stop: threading.Event) -> Layer:
        writer = self._content.writer()
        try:
            size_bytes = layer.pack(place.upper, writer.write, epoch=epoch, stop=stop)
            digest = writer.verify()
            blob_bytes = writer.offset
            if digest not in self._content:
                writer.commit()
        finally:
            writer.abort()
        chain_id = digests.chain_id(below[-1], digest) if below else digest
        self._snapshots.keep(place, chain_id, size_bytes)
        return Layer(digest, chain_id, digest, manifests.OCI_LAYER, blob_bytes, size_bytes)

    async def receive(self, wanted: Layer, below: Sequence[str], sources: Sequence[BlobSource]) -> Layer:
        """A layer that another host made on top of `below`, from there, checked and unpacked, with the size that it
        has. Raises InvalidArgument for one that does not belong there."""
        chain = (*below, digests.chain_id(below[-1], wanted.diff_id) if below else wanted.diff_id)
        if chain[-1] != wanted.chain_id:
            raise InvalidArgument(f"layer {wanted.digest} belongs on top of others")
        descriptor = Descriptor(wanted.media_type, wanted.digest, wanted.blob_bytes)
        size_bytes = await self._puller.layer(descriptor, wanted.diff_id, chain, at_hand(platforms.host(), *sources))
        await self._threads.run(lambda: self._content.partials.settled([wanted.digest]))
        return msgspec.structs.replace(wanted, size_bytes=size_bytes)

    async def image(self, document: Document, layers: Sequence[Layer], known: Mapping[str, Record]) -> Record:
        """The image of a configuration and its layers, complete on disk and not yet in the catalog; or the one of those
        that are `known`, by id, which is the same."""
        data = documents.write_document(document)
        config = Descriptor(manifests.OCI_CONFIG, digests.of(data), len(data))
        described = [Descriptor(each.media_type, each.digest, each.blob_bytes) for each in layers]
        manifests.check_layers(described)
        manifest = manifests.write_manifest(config, described)
        same = known.get(config.digest)
        if same is not None and same.digest == digests.of(manifest):
            return same
        await self._puller.downloader.keep(data)
        return await self._puller.pull(Target(manifest, manifests.OCI_MANIFEST), at_hand(document.platform, Nothing()))


def document_of(
    base: Document | None,
    *,
    platform: Platform,
    config: ImageConfig,
    author: str,
    layers: Sequence[Layer],
    made: Sequence[Making],
    cached: Mapping[str, int],
) -> Document:
    """The configuration of an image that was built on `base`. Pure."""
    return documents.built(
        base,
        platform=platform,
        config=config,
        author=author,
        diff_ids=[each.diff_id for each in layers],
        steps=[(each.created_by, each.created_at_ns, each.comment, each.empty) for each in made],
        cached=cached,
    )
