"""Pull: from a manifest to an image that is on disk, layers in parallel, from any BlobSources.

Layers are unpacked in order, each as soon as it and those below are there, while later ones still come. Nothing is
entered in the catalog here: that is for `images`, once all of this has succeeded.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import msgspec

from agent.image import document as documents
from agent.image import manifest as manifests
from agent.image.catalog import Record
from agent.image.content import Content
from agent.image.document import Document
from agent.image.download import Downloader
from agent.image.manifest import Descriptor, Index, Manifest
from agent.image.platform import Platform
from agent.image.snapshot import Snapshots
from agent.image.source import BlobSource, Progress, Report, silent
from agent.image.threads import Threads
from agent.image.unpacker import Unpacker
from agent.image.writeback import Writeback
from shoal import digest as digests
from shoal.clock import Clock
from shoal.errors import InvalidArgument, NotFound, ShoalError

PARALLEL = 3


class Target(msgspec.Struct, frozen=True):
    """The manifest or index by which the image was named."""

    data: bytes
    media_type: str = ""


class Wanted(msgspec.Struct, frozen=True):
    """From where, for which platform (`strict`: the image must say it), and who hears how it goes."""

    sources: Sequence[BlobSource]
    platform: Platform
    strict: bool
    report: Report


class _Top(msgspec.Struct, frozen=True):
    """A layer on top of others: it must come to `diff_id`, and is the last of `chain`."""

    layer: Descriptor
    diff_id: str
    chain: tuple[str, ...]
    unpacker: Unpacker


class Puller:
    """Brings images into `content` and `snapshots`."""

    def __init__(self, content: Content, snapshots: Snapshots, *, threads: Threads, clock: Clock) -> None:
        self._content = content
        self._snapshots = snapshots
        self._threads = threads
        self._clock = clock
        self.downloader = Downloader(content, threads=threads, clock=clock)

    async def pull(self, target: Target, wanted: Wanted) -> Record:
        """The image, complete on disk. Raises ShoalError; what did arrive is garbage then."""
        digest = await self.downloader.keep(target.data)
        blobs = {digest: target.media_type}
        found = manifests.parse(target.data, media_type=target.media_type)
        if isinstance(found, Index):
            chosen = manifests.choose(found, wanted.platform)
            data = await self.downloader.document(chosen, wanted.sources)
            blobs[chosen.digest] = chosen.media_type
            found = manifests.parse(data, media_type=chosen.media_type)
        if isinstance(found, Index):
            raise InvalidArgument(f"the image {digest} is an index inside an index")
        return await self._manifest(found, wanted, digest, blobs)

    async def manifest(self, record: Record, document: Document) -> tuple[Manifest, bytes]:
        """By which an image that is here came, read and as it is; of several platforms, the one that it is of."""
        digest, media_type = record.digest, record.blobs.get(record.digest, "")
        for _ in range(2):
            data = await self._threads.run(
                lambda digest=digest: self._content.read(digest, limit_bytes=manifests.MAX_DOCUMENT_BYTES)  # type: ignore[misc]
            )
            found = manifests.parse(data, media_type=media_type)
            if not isinstance(found, Index):
                return found, data
            chosen = manifests.choose(found, document.platform)
            digest, media_type = chosen.digest, chosen.media_type
        raise InvalidArgument(f"the image {record.id} is an index inside an index")

    async def _manifest(self, found: Manifest, wanted: Wanted, digest: str, blobs: dict[str, str]) -> Record:
        document = documents.parse_document(await self.downloader.document(found.config, wanted.sources))
        if wanted.strict and not wanted.platform.accepts(document.platform):
            raise NotFound(f"the image {digest} is for {document.platform}, not for {wanted.platform}")
        blobs[found.config.digest] = found.config.media_type
        blobs.update({layer.digest: layer.media_type for layer in found.layers})
        sizes = await self.layers(found.layers, document, wanted)
        return Record(
            id=found.config.digest,
            digest=digest,
            blobs=blobs,
            diff_ids=tuple(document.rootfs.diff_ids),
            chain_ids=digests.chain_ids(document.rootfs.diff_ids),
            layer_sizes=tuple(sizes),
            kept_at_ns=self._clock.now_ns(),
        )

    async def layers(self, layers: Sequence[Descriptor], document: Document, wanted: Wanted) -> list[int]:
        """Fetch and unpack; the size of each."""
        diff_ids = document.rootfs.diff_ids
        if len(diff_ids) != len(layers):
            raise InvalidArgument(f"the image has {len(layers)} layers, its configuration speaks of {len(diff_ids)}")
        chain = digests.chain_ids(diff_ids)
        slots = asyncio.Semaphore(PARALLEL)
        sizes: list[int] = []
        unpacker = Unpacker()
        try:
            async with asyncio.TaskGroup() as group:
                if any(chain_id not in self._snapshots for chain_id in chain):
                    group.create_task(self._threads.run(unpacker.start))
                coming = [
                    group.create_task(self._arrive(layer, chain_id, wanted, slots))
                    for layer, chain_id in zip(layers, chain, strict=True)
                ]
                writeback = Writeback(self._content.root, group, self._threads)
                for position, layer in enumerate(layers):
                    fresh = await coming[position]
                    unpacked = chain[position] not in self._snapshots
                    top = _Top(layer, diff_ids[position], chain[: position + 1], unpacker)
                    sizes.append(await self._have(top, fresh, wanted.report))
                    if unpacked and layer is not layers[-1]:  # the last one is synced with the catalog
                        writeback.unpacked(sizes[-1])
        except BaseExceptionGroup as group_error:
            raise error_of(group_error) from group_error
        finally:
            await self._threads.run(unpacker.close)
        return sizes

    async def layer(self, layer: Descriptor, diff_id: str, chain: tuple[str, ...], wanted: Wanted) -> int:
        """Fetch one layer and unpack it as the last of `chain`, the others being here; the size of its files."""
        fresh = await self.downloader.fetch(layer, wanted.sources, lambda _: None)
        unpacker = Unpacker()
        try:
            return await self._have(_Top(layer, diff_id, chain, unpacker), fresh, wanted.report)
        finally:
            await self._threads.run(unpacker.close)

    async def _arrive(self, layer: Descriptor, chain_id: str, wanted: Wanted, slots: asyncio.Semaphore) -> bool:
        """Have the layer's blob; true when it was not here before."""
        if self.downloader.has(layer) and chain_id in self._snapshots:
            wanted.report(Progress(layer.short, "Already exists"))
            return False
        wanted.report(Progress(layer.short, "Pulling fs layer"))
        if slots.locked():
            wanted.report(Progress(layer.short, "Waiting"))
        async with slots:
            fresh = await self.downloader.fetch(
                layer,
                wanted.sources,
                lambda done: wanted.report(Progress(layer.short, "Downloading", done, layer.size)),
            )
        wanted.report(Progress(layer.short, "Verifying Checksum"))
        wanted.report(Progress(layer.short, "Download complete"))
        return fresh

    async def _have(self, top: _Top, fresh: bool, report: Report) -> int:
        """Have the layer unpacked on top of those below; the size of its files."""
        layer, chain_id = top.layer, top.chain[-1]
        async with self._content.alone(chain_id):
            if chain_id in self._snapshots and not fresh:
                return self._snapshots.size(chain_id)
            stop = threading.Event()
            if chain_id in self._snapshots:
                # Other bytes for a layer that is here: other nodes will get them from us, so they must be right.
                report(Progress(layer.short, "Verifying Checksum"))
                await self._threads.run(
                    lambda: self._snapshots.verify(layer.digest, top.diff_id, stop=stop), stop=stop.set
                )
            else:
                await self._unpack(top, stop, report)
        report(Progress(layer.short, "Pull complete"))
        return self._snapshots.size(chain_id)

    async def _unpack(self, top: _Top, stop: threading.Event, report: Report) -> None:
        loop = asyncio.get_running_loop()
        layer = top.layer
        *below, chain_id = top.chain

        def progress(done: int) -> None:
            loop.call_soon_threadsafe(report, Progress(layer.short, "Extracting", done, layer.size))

        await self._threads.run(
            lambda: self._snapshots.unpack(
                layer.digest,
                below=below,
                diff_id=top.diff_id,
                chain_id=chain_id,
                unpacker=top.unpacker,
                stop=stop,
                progress=progress,
            ),
            stop=stop.set,
        )


def at_hand(platform: Platform, *sources: BlobSource) -> Wanted:
    """For an image whose content is in the store already; `sources` are asked for what is missing."""
    return Wanted(sources, platform, strict=False, report=silent)


def error_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error to tell of several that came together: the first of ours, else the first."""
    flat: list[BaseException] = []
    waiting: list[BaseException] = [group]
    while waiting:
        error = waiting.pop(0)
        if isinstance(error, BaseExceptionGroup):
            waiting.extend(error.exceptions)
        else:
            flat.append(error)
    return next((error for error in flat if isinstance(error, ShoalError)), flat[0])
