"""Images: what the rest of the agent asks of this host's images. The rooms behind it are named in the package's
docstring; this wires them, and is the only one that changes the catalog.

    images.json     the catalog
    blobs/ l/       content and unpacked layers that the catalog needs
    ingest/ unpack/ trash/      of the moment; empty after `open`
    steps/          of the moment, for builds
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from agent.image import archive, catalog, change, filter, incoming, lookup, removal
from agent.image import manifest as manifests
from agent.image import platform as platforms
from agent.image.catalog import Catalog, Layer, Name, Record
from agent.image.commit import Commit, Committer
from agent.image.content import Content
from agent.image.download import read_document
from agent.image.fresh import FreshLayers
from agent.image.gc import Collector, needed
from agent.image.lookup import Found
from agent.image.manifest import Document
from agent.image.pull import Puller, Target, Wanted, at_hand
from agent.image.rootfs import Importer, Rootfs
from agent.image.snapshot import Snapshots, name_of
from agent.image.source import BlobSource, Progress, Report, silent
from agent.image.threads import Threads
from agent.kernel import syscalls
from agent.registry.auth import Credentials
from agent.registry.places import places
from agent.registry.rules import Rules
from shoal import digest as digests
from shoal import reference as references
from shoal.broadcast import Broadcast
from shoal.clock import Clock, SystemClock
from shoal.errors import InvalidArgument, NotFound
from shoal.files import sweep_unfinished
from shoal.model.event import Event, EventKind, Tell, to_nobody
from shoal.model.image import Image, ImageConfig
from shoal.reference import Reference

log = logging.getLogger(__name__)

__all__ = ["BlobSource", "Commit", "Credentials", "Images", "Progress", "Pulled"]

_READ = 1 << 18


class Pulled(msgspec.Struct, frozen=True):
    """What a pull came to. `reference` is canonical; `up_to_date`: the name stood for this image before."""

    image_id: str
    reference: str
    digest: str
    up_to_date: bool


class Images:
    """One instance per data directory; made by `open`. Everything raises ShoalError with docker's words."""

    def __init__(
        self,
        path: Path,
        *,
        content: Content,
        snapshots: Snapshots,
        threads: Threads,
        clock: Clock,
        rules: Rules,
        tell: Tell,
    ) -> None:
        self.changes: Broadcast[None] = Broadcast()
        self._path = path
        self._content = content
        self._snapshots = snapshots
        self._threads = threads
        self._clock = clock
        self._tell = tell
        self._rules = rules
        self._catalog = Catalog()
        self._documents: dict[str, Document] = {}
        self._committing = asyncio.Lock()
        self._collector = Collector(content, snapshots, lambda: self._catalog)
        self._puller = Puller(content, snapshots, threads=threads, clock=clock)
        self._importer = Importer(content, snapshots, self._puller, threads=threads, clock=clock)
        self._committer = Committer(content, self._puller, threads=threads, clock=clock)
        self.fresh = FreshLayers(content, snapshots, self._puller, threads=threads)

    @classmethod
    async def open(
        cls,
        data_dir: Path,
        *,
        clock: Clock | None = None,
        rules: Rules | None = None,
        tell: Tell = to_nobody,
    ) -> Images:
        """The images below `data_dir`, after sweeping what an interrupted agent left there."""
        threads = Threads()

        def prepare() -> tuple[Content, Snapshots, Catalog]:
            data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            sweep_unfinished(data_dir)
            content = Content(data_dir)
            return content, Snapshots(data_dir, content), catalog.load(data_dir / "images.json")

        content, snapshots, found = await threads.run(prepare)
        images = cls(
            data_dir / "images.json",
            content=content,
            snapshots=snapshots,
            threads=threads,
            clock=clock or SystemClock(),
            rules=rules or Rules(),
            tell=tell,
        )
        await images._adopt(found)
        return images

    def close(self) -> None:
        """Wait for what runs in threads."""
        self._threads.close()

    # ---- bringing images in -------------------------------------------------------------------------

    async def pull(
        self,
        reference: str,
        *,
        platform: str = "",
        credentials: Credentials | None = None,
        progress: Report = silent,
    ) -> Pulled:
        """From the registry that the reference names. Cancelled: nothing of it is left."""
        wanted = references.parse(reference).with_default_tag()
        async with (
            self.working(),
            places(wanted, rules=self._rules, credentials=credentials, clock=self._clock) as found,
        ):
            data, media_type = await found.manifest(wanted.digest or wanted.tag, accept=manifests.ACCEPTED)
            target = Target(data, media_type)
            return await self._pull(wanted, target, found.all, platform=platform, report=progress, fetched=False)

    async def fetch(
        self, reference: str, manifest_digest: str, sources: Sequence[BlobSource], progress: Report = silent
    ) -> Pulled:
        """By digest from whoever has it, for the cluster: a tag that a user gave to another image stays there, and
        the image is found by its digest."""
        wanted = references.parse(reference).with_default_tag()
        digests.check(manifest_digest)
        async with self.working():
            data, media_type = await read_document(sources, manifest_digest)
            target = Target(data, media_type)
            return await self._pull(wanted, target, sources, platform="", report=progress, fetched=True)

    async def import_image(
        self,
        chunks: AsyncIterator[bytes],
        *,
        reference: str = "",
        message: str = "",
        changes: Sequence[str] = (),
        platform: str = "",
    ) -> str:
        """One layer from a tar of a root filesystem; the image's id."""
        name = references.parse(reference).with_default_tag() if reference else None
        if name is not None and name.digest:
            raise InvalidArgument("cannot import digest reference", hint="give a tag")
        rootfs = Rootfs(
            platform=platforms.parse(platform),
            config=change.apply(ImageConfig(), changes),
            comment=message or "Imported from -",
        )
        async with self.working():
            record = await self._importer.bring(chunks, rootfs)
            await self._enter([record], {name.key: Name(record.id, record.digest)} if name is not None else {})
        self._happened("import", record.id, name.familiar if name is not None else "")
        return record.id

    async def commit(self, chunks: AsyncIterator[bytes], base_id: str, commit: Commit, *, reference: str = "") -> str:
        """One more layer, a gzipped tar, on an image that is here; the new image's id."""
        name = references.parse(reference).with_default_tag() if reference else None
        if name is not None and name.digest:
            raise InvalidArgument("cannot commit to digest reference", hint="give a tag")
        base = self._catalog.images.get(base_id)
        if base is None:
            raise NotFound(f"No such image: {base_id}")
        async with self.working():
            record = await self._committer.bring(chunks, base, self._documents[base_id], commit)
            await self._enter([record], {name.key: Name(record.id, record.digest)} if name is not None else {})
        return record.id

    async def load(self, chunks: AsyncIterator[bytes]) -> list[tuple[str, str]]:
        """The images of an archive, with their tags: (familiar reference or "", image id) of each."""
        async with self.working():
            stream = incoming.Incoming(chunks)
            saved = await self._threads.run(lambda: archive.read(stream, self._content), stop=stream.cancel)
            records, loaded = [], []
            names: dict[str, Name] = {}
            for each in saved:
                record = await self._puller.pull(each.target, at_hand(platforms.host(), archive.Nothing()))
                records.append(record)
                names.update({name.key: Name(record.id, record.digest) for name in each.names})
                loaded += [(name.familiar, record.id) for name in each.names] or [("", record.id)]
            await self._enter(records, names)
        for familiar, image_id in loaded:
            self._happened("load", image_id, familiar)
        return loaded

    # ---- builds -------------------------------------------------------------------------------------

    async def base(self, reference: str) -> tuple[Document, tuple[Layer, ...]]:
        """What a build stands on: an image that is here. Raises NotFound."""
        record = lookup.find(self._catalog, reference).record
        return self._documents[record.id], await self.fresh.of(record, self._documents[record.id])

    async def built(self, document: Document, layers: Sequence[Layer], tags: Sequence[Reference]) -> str:
        """The image of fresh layers, entered under `tags`, and those layers kept for other builds; its id. Only while
        `working`."""
        record = await self.fresh.image(document, layers)
        names = {tag.key: Name(record.id, record.digest) for tag in tags}
        await self._enter([record], names)
        for tag in tags:
            self._happened("tag", record.id, tag.familiar)
        return record.id

    async def keep_layers(self, layers: Collection[Layer]) -> None:
        """They stay, whether an image has them or not, until `drop_layers`. Only while `working`."""
        async with self._committing:
            await self._save(self._catalog.with_layers(layers))

    async def drop_layers(self, chain_ids: Collection[str]) -> None:
        async with self._committing:
            await self._save(self._catalog.without_layers(chain_ids))
        self._collector.collect()
        await self._free()

    def kept_layers(self) -> Mapping[str, Layer]:
        """By chain id."""
        return self._catalog.layers

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Around everything that brings content in: nothing is deleted meanwhile, and what is not in the catalog
        afterwards goes."""
        try:
            with self._collector.working():
                yield
        finally:
            await self._free()

    # ---- names --------------------------------------------------------------------------------------

    async def tag(self, source: str, target: str) -> None:
        """Give an image another name; a name of another image moves here."""
        name = references.parse(target).with_default_tag()
        if name.digest:
            raise InvalidArgument("refusing to create a tag with a digest reference")
        found = lookup.find(self._catalog, source)
        await self._enter([], {name.key: Name(found.record.id, found.digest)})
        self._happened("tag", found.record.id, name.familiar)

    async def remove(
        self,
        reference: str,
        *,
        force: bool = False,
        users: Callable[[str], Sequence[removal.User]] = lambda _: [],
    ) -> tuple[list[str], list[str]]:
        """Take a name or an image away, by docker's rules: (untagged, deleted). `users` tells the containers made from
        an image id."""
        async with self._committing:
            found = lookup.find(self._catalog, reference)
            record = found.record
            decided = removal.decide(self._catalog, record, named=found.name, force=force, users=users(record.id))
            after = self._catalog.without_names(decided.untag)
            if decided.delete:
                after = after.without_image(record.id)
            await self._save(after)
        self._collector.collect()
        await self._free()
        untagged = [references.parse(name).familiar for name in decided.untag]
        for name in untagged:
            self._happened("untag", record.id, name)
        if decided.delete:
            self._happened("delete", record.id)
        if not decided.delete:
            return untagged, []
        kept = needed(after)[1]
        return untagged, [record.id, *(each for each in reversed(record.chain_ids) if name_of(each) not in kept)]

    # ---- looking ------------------------------------------------------------------------------------

    async def get(self, reference: str) -> Image:
        """The image of a name, an id or a unique prefix of one. Raises NotFound ("No such image: x:latest")."""
        return self._shown(lookup.find(self._catalog, reference))

    async def list(self, reference: str = "", filters: Sequence[tuple[str, str]] = ()) -> list[Image]:
        """Newest first; only the names that match `reference`."""
        images = [self._shown(Found(record, record.digest)) for record in self._catalog.images.values()]
        images.sort(key=lambda image: (-image.meta.created_at_ns, image.meta.id))
        return filter.selected(
            images, reference, filters, find=lambda value: self._shown(lookup.find(self._catalog, value))
        )

    def layers(self, image_id: str) -> tuple[str, ...]:
        """The unpacked directories of an image, top first: overlayfs' lowerdirs."""
        record = self._catalog.images.get(image_id)
        if record is None:
            raise NotFound(f"No such image: {image_id}")
        return tuple(self._snapshots.path(chain_id) for chain_id in reversed(record.chain_ids))

    def held(self) -> Sequence[tuple[str, str]]:
        """(canonical reference, manifest digest) of all that other nodes can have from here; "" for nameless ones."""
        held = [(key, name.digest) for key, name in self._catalog.names.items()]
        named = {digest for _, digest in held}
        return held + [("", record.digest) for record in self._catalog.images.values() if record.digest not in named]

    async def read_blob(self, digest: str, offset: int = 0) -> tuple[int, str, AsyncGenerator[bytes, None]]:
        """A manifest, configuration or layer of an image that is here, from `offset` on (as BlobSource.open)."""
        kinds = (record.blobs[digest] for record in self._catalog.images.values() if digest in record.blobs)
        kind = next(kinds, None)
        if kind is None:
            raise NotFound(f"no content {digest[:200]} on this host")
        size = self._content.size(digest)
        if not 0 <= offset <= size:
            raise InvalidArgument(f"content {digest} has {size} bytes, there is nothing at {offset}")
        return size, kind, self._stream(digest, offset)

    async def _stream(self, digest: str, offset: int) -> AsyncGenerator[bytes, None]:
        blob = await self._threads.run(lambda: self._content.open(digest))
        try:
            blob.seek(offset)
            while data := await self._threads.run(lambda: blob.read(_READ)):
                yield data
        finally:
            blob.close()

    def _happened(self, action: str, image_id: str, name: str = "") -> None:
        self._tell(Event(kind=EventKind.IMAGE, action=action, id=image_id, attributes={"name": name or image_id}))

    def _shown(self, found: Found) -> Image:
        return lookup.image_of(self._catalog, found.record, self._documents[found.record.id], digest=found.digest)

    # ---- inside -------------------------------------------------------------------------------------

    async def _pull(
        self,
        wanted: Reference,
        target: Target,
        sources: Sequence[BlobSource],
        *,
        platform: str,
        report: Report,
        fetched: bool,
    ) -> Pulled:
        asked = platforms.parse(platform)
        digest = digests.of(target.data)
        record = self._catalog.holder(digest)
        if record is None or not asked.accepts(self._documents[record.id].platform):
            record = await self._puller.pull(target, Wanted(sources, asked, strict=bool(platform), report=report))
        before = self._catalog.names.get(wanted.key)
        await self._enter(
            [record], catalog.names_for(wanted, record.id, digest, current=self._catalog, fetched=fetched)
        )
        up_to_date = before is not None and (before.image_id, before.digest) == (record.id, digest)
        self._happened("pull", record.id, wanted.familiar)
        return Pulled(record.id, wanted.canonical, digest, up_to_date)

    async def _enter(self, records: Sequence[Record], names: Mapping[str, Name]) -> None:
        """Add to the catalog; the images are there for all when this returns."""
        documents = {record.id: await self._document(record) for record in records}
        async with self._committing:
            after = self._catalog
            for record in records:
                after = after.with_image(record)
            self._documents.update(documents)
            await self._save(after.with_names(names))

    async def _save(self, after: Catalog) -> None:
        """Make `after` the catalog, on disk first; only while `_committing`."""
        if after == self._catalog:
            return
        fresh = after.images.keys() - self._catalog.images.keys() or after.layers.keys() - self._catalog.layers.keys()

        def write() -> None:
            if fresh:
                # Layers are plain files that nobody synced: all at once, before an image says that they are there.
                sync_filesystem(self._path.parent)
            catalog.save(self._path, after)

        await self._threads.run(write)
        self._catalog = after
        self._documents = {key: value for key, value in self._documents.items() if key in after.images}
        self.changes.publish(None)

    async def _free(self) -> None:
        await self._threads.run(self._content.empty_trash)

    async def _document(self, record: Record) -> Document:
        def read() -> Document:
            data = self._content.read(record.id, limit_bytes=manifests.MAX_DOCUMENT_BYTES)
            return manifests.parse_document(data)

        known = self._documents.get(record.id)
        return known if known is not None else await self._threads.run(read)

    async def _adopt(self, found: Catalog) -> None:
        """Take over what an earlier agent left: whole images stay, the rest goes."""
        for record in found.images.values():
            missing = [digest for digest in record.blobs if digest not in self._content]
            missing += [chain_id for chain_id in record.chain_ids if chain_id not in self._snapshots]
            if missing:
                log.warning("image %s is dropped: %s is gone from the disk", record.id, ", ".join(missing))
                found = found.without_image(record.id)
                continue
            for chain_id, size_bytes in zip(record.chain_ids, record.layer_sizes, strict=True):
                self._snapshots.learn(chain_id, size_bytes)
            self._documents[record.id] = await self._document(record)
        for layer in found.layers.values():
            if layer not in self.fresh:
                found = found.without_layers([layer.chain_id])
            self._snapshots.learn(layer.chain_id, layer.size_bytes)
        self._catalog = found
        self._collector.collect()
        await self._free()


def sync_filesystem(path: Path) -> None:
    """syncfs(2)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syscalls.call("syncfs", descriptor)
    finally:
        os.close(descriptor)
