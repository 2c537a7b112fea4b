"""An image from a bare root filesystem in a tar: one layer, and a configuration made here (`import`)."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator

import msgspec

from agent.image import document as documents
from agent.image import incoming
from agent.image import manifest as manifests
from agent.image.archive import Nothing
from agent.image.catalog import Record
from agent.image.compression import Compression, detect
from agent.image.content import Content
from agent.image.layer import Unpacked
from agent.image.manifest import Descriptor
from agent.image.platform import Platform
from agent.image.pull import Puller, Target, at_hand
from agent.image.snapshot import Snapshots
from agent.image.threads import Threads
from shoal.clock import Clock
from shoal.model.image import ImageConfig

_NO_ENTRIES = bytes(1024)  # the end mark of a tar


class Rootfs(msgspec.Struct, frozen=True):
    """What the tar does not say of the image."""

    platform: Platform
    config: ImageConfig
    comment: str


class Importer:
    def __init__(
        self, content: Content, snapshots: Snapshots, puller: Puller, *, threads: Threads, clock: Clock
    ) -> None:
        self._content = content
        self._snapshots = snapshots
        self._puller = puller
        self._threads = threads
        self._clock = clock

    async def bring(self, chunks: AsyncIterator[bytes], rootfs: Rootfs) -> Record:
        """The image of the tar that `chunks` stream, complete on disk and not yet in the catalog. Raises ShoalError."""
        blob = await incoming.store(_archive(chunks), self._content, self._threads)
        stop = threading.Event()
        layer = await self._threads.run(lambda: self._snapshots.unpack_base(blob, stop=stop), stop=stop.set)
        manifest = manifests.write_manifest(await self._config(layer, rootfs), [await self._layer(blob)])
        return await self._puller.pull(Target(manifest, manifests.OCI_MANIFEST), at_hand(rootfs.platform, Nothing()))

    async def _config(self, layer: Unpacked, rootfs: Rootfs) -> Descriptor:
        document = documents.new_document(
            platform=rootfs.platform,
            created_at_ns=self._clock.now_ns(),
            diff_ids=[layer.diff_id],
            comment=rootfs.comment,
            config=rootfs.config,
        )
        data = documents.write_document(document)
        return Descriptor(manifests.OCI_CONFIG, await self._puller.downloader.keep(data), len(data))

    async def _layer(self, blob: str) -> Descriptor:
        def head() -> bytes:
            with self._content.open(blob) as file:
                return file.read(6)

        suffix = {Compression.GZIP: "+gzip", Compression.ZSTD: "+zstd"}.get(detect(await self._threads.run(head)), "")
        return Descriptor(manifests.OCI_LAYER + suffix, blob, self._content.size(blob))


async def _archive(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """`chunks`, or where there is not one byte, an archive without entries: tar(1) reads both alike."""
    empty = True
    async for each in chunks:
        empty = empty and not each
        yield each
    if empty:
        yield _NO_ENTRIES
