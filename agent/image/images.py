"""Images: what the rest of the agent asks of this host's images. The rooms behind it are named in the package's
docstring; this wires them.

    images.json     the catalog
    blobs/ l/       content and unpacked layers that the catalog needs
    ingest/ unpack/ trash/      of the moment; empty after `open`
    steps/          of the moment, for builds
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from agent.image import archive, catalog, change, contents, filter, incoming, lookup, removal
from agent.image import platform as platforms
from agent.image.catalog import Catalog, Name, Record
from agent.image.commit import Commit, Committer
from agent.image.compressed import Compressor
from agent.image.content import Content
from agent.image.deposit import Deposits
from agent.image.download import read_document
from agent.image.fresh import FreshLayers
from agent.image.gc import Collector
from agent.image.holdings import Holdings
from agent.image.indexes import Indexes
from agent.image.lookup import Found
from agent.image.outgoing import Outgoing
from agent.image.pull import Puller, Target, Wanted, at_hand
from agent.image.push import Pusher
from agent.image.remote import Remote
from agent.image.removal import Removal, Removed, Users, nobody
from agent.image.rootfs import Importer, Rootfs
from agent.image.snapshot import Snapshots
from agent.image.source import BlobSource, Progress, Report, silent
from agent.image.threads import Threads
from agent.image.workbench import Workbench
from agent.registry.auth import Credentials
from agent.registry.places import places
from agent.registry.rules import Rules
from shoal import digest as digests
from shoal import reference as references
from shoal.clock import Clock, SystemClock
from shoal.errors import Conflict, Exhausted, InvalidArgument, NotFound
from shoal.files import sweep_unfinished
from shoal.model.event import Tell, to_nobody
from shoal.model.image import HistoryLine, Image, ImageConfig, ImageUsage
from shoal.reference import Reference

__all__ = ["BlobSource", "Commit", "Credentials", "Images", "Progress", "Pulled"]


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
        self._content = content
        self._snapshots = snapshots
        self._threads = threads
        self._clock = clock
        self._rules = rules
        self._holdings = holdings = Holdings(path, content, snapshots, threads=threads, tell=tell)
        # Of what this host has.
        self.changes = holdings.changes
        self._collector = Collector(content, snapshots, lambda: holdings.catalog, threads=threads)
        self._puller = Puller(content, snapshots, threads=threads, clock=clock)
        self._importer = Importer(content, snapshots, self._puller, threads=threads, clock=clock)
        self._committer = Committer(content, self._puller, threads=threads, clock=clock)
        self._outgoing = Outgoing(content, holdings, self._puller, threads=threads)
        self.fresh = FreshLayers(content, snapshots, self._puller, threads=threads)
        self.workbench = Workbench(self.fresh, holdings, self._outgoing, self._collector)
        pusher = Pusher(
            content,
            holdings,
            Compressor(content, holdings, threads=threads),
            self._puller.downloader,
            threads=threads,
            clock=clock,
        )
        self.indexes = Indexes(rules, clock=clock)
        self.deposits = Deposits(rules, clock=clock)
        self.remote = Remote(rules, holdings, pusher, working=self.working, clock=clock)

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
        await images._holdings.adopt(found)
        await images._collector.sweep()
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
        """From the registry that the reference names. Cancelled: what came is kept for the next try (`partial`)."""
        wanted = references.parse(reference).with_default_tag()
        async with (
            self.working(),
            places(wanted, rules=self._rules, credentials=credentials, clock=self._clock) as found,
        ):
            data, media_type = await found.manifest(wanted.digest or wanted.tag)
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
            await self._holdings.enter([record], {name.key: Name(record.id, record.digest)} if name is not None else {})
        self._holdings.happened("import", record.id, name.familiar if name is not None else "")
        return record.id

    async def commit(self, chunks: AsyncIterator[bytes], base_id: str, commit: Commit, *, reference: str = "") -> str:
        """One more layer, a gzipped tar, on an image that is here; the new image's id."""
        name = references.parse(reference).with_default_tag() if reference else None
        if name is not None and name.digest:
            raise InvalidArgument("cannot commit to digest reference", hint="give a tag")
        base = self._holdings.catalog.images.get(base_id)
        if base is None:
            raise NotFound(f"No such image: {base_id}")
        async with self.working():
            record = await self._committer.bring(chunks, base, self._holdings.document(base_id), commit)
            record = msgspec.structs.replace(record, parent=base_id)
            await self._holdings.enter([record], {name.key: Name(record.id, record.digest)} if name is not None else {})
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
            await self._holdings.enter(records, names)
        for familiar, image_id in loaded:
            self._holdings.happened("load", image_id, familiar)
        return loaded

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Around everything that brings content in: nothing is deleted meanwhile, and what is not in the catalog
        afterwards goes."""
        async with self._collector.working():
            yield

    # ---- names --------------------------------------------------------------------------------------

    async def tag(self, source: str, target: str) -> None:
        """Give an image another name; a name of another image moves here."""
        name = references.parse(target).with_default_tag()
        if name.digest:
            raise InvalidArgument("refusing to create a tag with a digest reference")
        found = self._holdings.find(source)
        await self._holdings.enter([], {name.key: Name(found.record.id, found.digest)})
        self._holdings.happened("tag", found.record.id, name.familiar)

    async def remove(
        self, reference: str, *, force: bool = False, prune: bool = True, users: Users = nobody
    ) -> Removed:
        """Take a name or an image away, by docker's rules, and with `prune` the nameless images below it. `users` tells
        the containers made from an image id."""
        async with self._holdings.changing:
            found = self._holdings.find(reference)
            catalog, record = self._holdings.catalog, found.record
            decided = removal.decide(catalog, record, named=found.name, force=force, users=users(record.id))
            if prune:
                decided = removal.with_parents(catalog, record, decided, users=users)
            removed = await self._remove(record, decided)
        await self._collector.sweep()
        return removed

    async def prune(self, *, all: bool, chosen: Callable[[Image], bool], users: Users) -> list[Removed]:
        """Take away what `chosen` picks of the images that nobody uses: those without a tag, or `all`."""
        removed = []
        async with self._holdings.changing:
            for record in removal.unused(self._holdings.catalog, all=all, users=users):
                before = self._holdings.catalog
                # It may have gone with its last child.
                if record.id in before.images and chosen(self._holdings.shown(Found(record, record.digest))):
                    removed.append(await self._remove(record, removal.whole(before, record, users=users)))
        await self._collector.sweep()
        return removed

    async def _remove(self, record: Record, decided: Removal) -> Removed:
        removed, after = removal.outcome(self._holdings.catalog, record, decided)
        await self._holdings.save(after)
        for name in removed.untagged:
            self._holdings.happened("untag", record.id, name)
        for image_id in (record.id, *decided.parents) if decided.delete else ():
            self._holdings.happened("delete", image_id)
        return removed

    # ---- looking ------------------------------------------------------------------------------------

    async def get(self, reference: str) -> Image:
        """The image of a name, an id or a unique prefix of one. Raises NotFound ("No such image: x:latest")."""
        return self._holdings.shown(self._holdings.find(reference))

    def means(self, reference: str, image_id: str) -> bool:
        """Whether this name, id or prefix stands for that image now."""
        try:
            return self._holdings.find(reference).record.id == image_id
        except (NotFound, Conflict):
            return False

    async def list(
        self, reference: str = "", filters: Sequence[tuple[str, str]] = (), *, all: bool = True
    ) -> list[Image]:
        """Newest first; only the names that match `reference`. Without `all`, none that is there for its children
        alone."""
        catalog = self._holdings.catalog
        records = [each for each in catalog.images.values() if all or not catalog.intermediate(each.id)]
        images = [self._holdings.shown(Found(record, record.digest)) for record in records]
        images.sort(key=lambda image: (-image.meta.created_at_ns, image.meta.id))
        return filter.selected(
            images, reference, filters, find=lambda value: self._holdings.shown(self._holdings.find(value))
        )

    def history(self, reference: str) -> Sequence[HistoryLine]:
        """How an image came about, the last instruction first. Raises NotFound."""
        found = self._holdings.find(reference)
        return lookup.history(self._holdings.catalog, found.record, self._holdings.document(found.record.id))

    def usage(self) -> tuple[Sequence[ImageUsage], int]:
        """What each image takes of the disk, newest first, and what all together take."""
        return lookup.usage(self._holdings.catalog, self._holdings.shown)

    def layers(self, image_id: str) -> tuple[str, ...]:
        """The unpacked directories of an image, top first: overlayfs' lowerdirs."""
        record = self._holdings.catalog.images.get(image_id)
        if record is None:
            raise NotFound(f"No such image: {image_id}")
        return tuple(self._snapshots.path(chain_id) for chain_id in reversed(record.chain_ids))

    async def save(self, asked: Sequence[str]) -> AsyncGenerator[bytes, None]:
        """An archive of the images that are `asked` for, with their names. Raises NotFound."""
        async with self.working():
            found = contents.asked(self._holdings.catalog, asked)
            async for piece in self._outgoing.archive(
                [(each, self._holdings.document(each.record.id)) for each in found]
            ):
                yield piece

    # ---- for other nodes ----------------------------------------------------------------------------

    def held(self) -> Sequence[tuple[str, str]]:
        """As `Outgoing.held`."""
        return self._outgoing.held()

    async def read_blob(self, digest: str, offset: int = 0) -> tuple[int, str, AsyncGenerator[bytes, None]]:
        """As `Outgoing.read_blob`."""
        return await self._outgoing.read_blob(digest, offset)

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
        record = self._holdings.catalog.holder(digest)
        if record is None or not asked.accepts(self._holdings.document(record.id).platform):
            try:
                record = await self._puller.pull(target, Wanted(sources, asked, strict=bool(platform), report=report))
            except Exhausted:
                await self._threads.run(self._content.partials.make_room)
                raise
        before = self._holdings.catalog.names.get(wanted.key)
        await self._holdings.enter(
            [record], catalog.names_for(wanted, record.id, digest, current=self._holdings.catalog, fetched=fetched)
        )
        await self._threads.run(lambda: self._content.partials.settled(record.blobs))
        up_to_date = before is not None and (before.image_id, before.digest) == (record.id, digest)
        self._holdings.happened("pull", record.id, wanted.familiar)
        return Pulled(record.id, wanted.canonical, digest, up_to_date)
