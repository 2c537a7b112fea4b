"""An image from a container: its image's layers, and one of what it changed (`commit`)."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator

import msgspec

from agent.image import document as documents
from agent.image import incoming, layer
from agent.image import manifest as manifests
from agent.image.archive import Nothing
from agent.image.catalog import Record
from agent.image.content import Content
from agent.image.document import Document
from agent.image.manifest import Descriptor
from agent.image.pull import Puller, Target, at_hand
from agent.image.threads import Threads
from shoal import digest as digests
from shoal import tarball
from shoal.clock import Clock
from shoal.model.image import ImageConfig

# A tar's end and nothing before it.
_EMPTY = digests.of(tarball.END)


class Commit(msgspec.Struct, frozen=True):
    """What the layer does not say of the image. `command` is what made it: the container's."""

    config: ImageConfig
    author: str
    comment: str
    command: str


class Committer:
    def __init__(self, content: Content, puller: Puller, *, threads: Threads, clock: Clock) -> None:
        self._content = content
        self._puller = puller
        self._threads = threads
        self._clock = clock

    async def bring(self, chunks: AsyncIterator[bytes], base: Record, document: Document, commit: Commit) -> Record:
        """The image of `base`, whose configuration is `document`, with one more layer, the gzipped tar that `chunks`
        stream, unless that is empty. Complete on disk and not yet in the catalog. Raises ShoalError."""
        below, _ = await self._puller.manifest(base, document)
        blob = await incoming.store(chunks, self._content, self._threads)
        stop = threading.Event()
        diff_id = await self._threads.run(lambda: self._diff_id(blob, stop), stop=stop.set)
        made = documents.committed(
            document,
            diff_id="" if diff_id == _EMPTY else diff_id,
            created_at_ns=self._clock.now_ns(),
            config=commit.config,
            author=commit.author,
            comment=commit.comment,
            command=commit.command,
        )
        data = documents.write_document(made)
        config = Descriptor(manifests.OCI_CONFIG, await self._puller.downloader.keep(data), len(data))
        layers = list(below.layers)
        if diff_id != _EMPTY:
            layers.append(Descriptor(f"{manifests.OCI_LAYER}+gzip", blob, self._content.size(blob)))
        manifests.check_layers(layers)
        manifest = manifests.write_manifest(config, layers)
        return await self._puller.pull(Target(manifest, manifests.OCI_MANIFEST), at_hand(made.platform, Nothing()))

    def _diff_id(self, blob: str, stop: threading.Event) -> str:
        with self._content.open(blob) as file:
            return layer.digest_of(file, stop=stop)
