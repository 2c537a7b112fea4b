"""Push: an image of this host to a registry, layers in parallel; what the registry has is not sent again, and what
another repository of it has is only named. `agent.registry` speaks to it.

An image that came from elsewhere goes as it came, byte by byte, so that its digest stays. One that was made here gets
its layers compressed on the way, and a manifest that says so: under that one it is found here as well, once it is out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

import msgspec

from agent.image import manifest as manifests
from agent.image.catalog import Catalog, Name, Record
from agent.image.compressed import Compressor, is_plain
from agent.image.compression import Compression
from agent.image.content import Content
from agent.image.deposit import Deposit
from agent.image.download import Downloader
from agent.image.holdings import Holdings
from agent.image.manifest import Descriptor, Index, Manifest
from agent.image.platform import Platform
from agent.image.pull import error_of
from agent.image.source import Progress, Report, silent
from agent.image.threads import Threads
from agent.registry.repository import Repository
from agent.registry.upload import Blob, upload
from shoal import digest as digests
from shoal.clock import Clock
from shoal.errors import InvalidArgument, NotFound, Unsupported
from shoal.reference import Reference, parse

PARALLEL = 5
_MOUNTS = 2
T = TypeVar("T")


class Pushed(msgspec.Struct, frozen=True):
    """`tag` of the repository is now the manifest or index `digest`, which has `size` bytes."""

    tag: str
    digest: str
    size: int


class _Text(msgspec.Struct, frozen=True):
    """A manifest or an index, as it is sent."""

    data: bytes
    media_type: str

    @property
    def digest(self) -> str:
        return digests.of(self.data)

    @property
    def parsed(self) -> Index | Manifest:
        return manifests.parse(self.data, media_type=self.media_type)


class _Form(msgspec.Struct, frozen=True):
    """What is sent: blobs first, then the documents in order, the last of which is the image's. `shown` tells for a
    blob what the user sees instead of its digest."""

    blobs: tuple[Descriptor, ...]
    documents: tuple[_Text, ...]
    shown: dict[str, str]


class Pusher:
    """Sends what `holdings` has."""

    def __init__(
        self,
        content: Content,
        holdings: Holdings,
        compressor: Compressor,
        downloader: Downloader,
        *,
        threads: Threads,
        clock: Clock,
    ) -> None:
        self._content = content
        self._holdings = holdings
        self._compressor = compressor
        self._downloader = downloader
        self._threads = threads
        self._clock = clock

    async def push(
        self,
        reference: Reference,
        repository: Repository,
        *,
        compression: Compression | None,
        report: Report,
        platform: Platform | None = None,
    ) -> Pushed:
        """Send the image of a tag, or what it is for one `platform`. Raises NotFound, or what the registry says; what
        is there by then stays there."""
        name = self._holdings.catalog.names.get(reference.key)
        if name is None:
            raise NotFound(f"tag does not exist: {reference.familiar}")
        record = self._holdings.catalog.images[name.image_id]
        whole = text = await self._read(name.digest, record)
        if platform is not None:
            text = await self._chosen(whole, record, platform)
        form = await self._form(text, record, compression, report)
        pushed = await self._send(reference, repository, form, report)
        if text is whole:
            await self._remember(reference, name, form)
        return pushed

    async def push_deposit(
        self, reference: Reference, repository: Repository, deposit: Deposit, compression: Compression | None
    ) -> Pushed:
        """Send what is no image under a tag, its layers compressed. Nothing of it is entered here."""
        packing = [self._compressor.layer(layer, compression, lambda _: None) for layer in deposit.layers]
        layers = await _together(packing)
        data = deposit.configured(layers)
        config = Descriptor(deposit.kind, await self._downloader.keep(data), len(data))
        text = _Text(manifests.write_manifest(config, layers), manifests.OCI_MANIFEST)
        blobs = {blob.digest: blob for blob in (*layers, config)}
        return await self._send(reference, repository, _Form(tuple(blobs.values()), (text,), {}), silent)

    async def _send(self, reference: Reference, repository: Repository, form: _Form, report: Report) -> Pushed:
        send = _Sending(repository, self._content, self._holdings.catalog, self._threads, self._clock, report)
        await send.blobs(form)
        *inner, last = form.documents
        for each in inner:
            await repository.put_manifest(each.digest, each.data, each.media_type)
        digest = await repository.put_manifest(reference.tag, last.data, last.media_type)
        return Pushed(reference.tag, digest, len(last.data))

    async def _form(self, text: _Text, record: Record, compression: Compression | None, report: Report) -> _Form:
        found = text.parsed
        if isinstance(found, Index):
            if compression is not None:
                raise Unsupported(
                    "--compression of an image for several platforms is not supported", hint="choose one: --platform"
                )
            form = await self._whole(found, text, record)
        elif compression is not None or any(is_plain(layer) for layer in found.layers):
            return await self._packed(found, record, compression=compression, report=report)
        else:
            form = _of_manifest(found, text, record)
        for diff_id in form.shown.values():
            report(Progress(short(diff_id), "Preparing"))
        return form

    async def _packed(
        self, found: Manifest, record: Record, *, compression: Compression | None, report: Report
    ) -> _Form:
        """An image as it leaves when it was made here, or somebody says how: with its layers compressed."""
        for diff_id in record.diff_ids:
            report(Progress(short(diff_id), "Preparing"))
        loop = asyncio.get_running_loop()

        def told(layer: Descriptor, diff_id: str) -> Callable[[int], None]:
            def tell(done: int) -> None:
                progress = Progress(short(diff_id), "Compressing", done, layer.size)
                loop.call_soon_threadsafe(report, progress)

            return tell

        layers = zip(found.layers, record.diff_ids, strict=True)
        packing = [self._compressor.layer(layer, compression, told(layer, diff_id)) for layer, diff_id in layers]
        leaving = [_of_oci(layer) for layer in await _together(packing)]
        config = msgspec.structs.replace(found.config, media_type=manifests.OCI_CONFIG)
        text = _Text(manifests.write_manifest(config, leaving), manifests.OCI_MANIFEST)
        return _of_manifest(Manifest(config, tuple(leaving)), text, record)

    async def _whole(self, index: Index, text: _Text, record: Record) -> _Form:
        """An image for several platforms: all of it where all of it is here, else what is here of it."""
        forms = []
        for each in index.manifests:
            if each.digest in self._content:
                inner = _Text((await self._read(each.digest, record)).data, each.media_type)
                found = inner.parsed
                if isinstance(found, Manifest) and self._has(found):
                    forms.append(_of_manifest(found, inner, record))
        if not forms:
            raise NotFound(f"the image {record.id} has none of its platforms on this host")
        if len(forms) < len(index.manifests):
            return forms[0]
        return _Form(
            tuple({blob.digest: blob for form in forms for blob in form.blobs}.values()),
            (*(document for form in forms for document in form.documents), text),
            {digest: diff_id for form in forms for digest, diff_id in form.shown.items()},
        )

    async def _chosen(self, text: _Text, record: Record, platform: Platform) -> _Text:
        """What an image is for one platform. Raises NotFound where it is for others, or that one is not here."""
        found = text.parsed
        if isinstance(found, Index):
            chosen = manifests.choose(found, platform)
            if chosen.digest in self._content:
                inner = await self._read(chosen.digest, record)
                if isinstance(inner.parsed, Manifest) and self._has(inner.parsed):
                    return inner
            raise NotFound(f"the image for {platform} is not on this host", hint="pull it with --platform")
        here = self._holdings.document(record.id).platform
        if not platform.accepts(here):
            raise NotFound(f"the image is for {here}, {platform} was asked for")
        return text

    def _has(self, found: Manifest) -> bool:
        return all(blob.digest in self._content for blob in (*found.layers, found.config))

    async def _read(self, digest: str, record: Record) -> _Text:
        data = await self._threads.run(lambda: self._content.read(digest, limit_bytes=manifests.MAX_DOCUMENT_BYTES))
        said = record.blobs.get(digest, "")
        found = manifests.parse(data, media_type=said)
        default = manifests.OCI_INDEX if isinstance(found, Index) else manifests.OCI_MANIFEST
        return _Text(data, said or default)

    async def _remember(self, reference: Reference, name: Name, form: _Form) -> None:
        """The image is here under the digest that the registry knows it by, too."""
        record = self._holdings.catalog.images.get(name.image_id)
        if record is None or self._holdings.catalog.names.get(reference.key) != name:
            return  # taken away, or another by now
        blobs = {blob.digest: blob.media_type for blob in form.blobs}
        for each in form.documents:
            blobs[await self._downloader.keep(each.data)] = each.media_type
        digest = form.documents[-1].digest
        pushed = Name(name.image_id, digest)
        await self._holdings.enter(
            [msgspec.structs.replace(record, blobs=blobs)],
            {reference.key: pushed, reference.at(digest).key: pushed},
        )


class _Sending(msgspec.Struct, frozen=True):
    """The blobs of one image on their way to one repository."""

    repository: Repository
    content: Content
    catalog: Catalog
    threads: Threads
    clock: Clock
    report: Report

    async def blobs(self, form: _Form) -> None:
        slots = asyncio.Semaphore(PARALLEL)
        await _together([self._blob(blob, form.shown.get(blob.digest, ""), slots) for blob in form.blobs])

    async def _blob(self, blob: Descriptor, shown: str, slots: asyncio.Semaphore) -> None:
        """Have it there. What has no name for the user (a configuration) is sent without a word."""

        def tell(status: str, done: int = 0) -> None:
            if shown:
                self.report(Progress(short(shown), status, done, blob.size if done else 0))

        if slots.locked():
            tell("Waiting")
        async with slots:
            if await self.repository.has(blob.digest):
                tell("Layer already exists")
                return
            for path in elsewhere(self.catalog, blob.digest, self.repository.reference):
                if await self.repository.mount(blob.digest, path):
                    tell(f"Mounted from {path}")
                    return
            await self._send(blob, lambda done: tell("Pushing", done))
        tell("Pushed")

    async def _send(self, blob: Descriptor, report: Callable[[int], None]) -> None:
        with self.content.open(blob.digest) as file:
            lock = asyncio.Lock()

            def read(offset: int, size: int) -> bytes:
                file.seek(offset)
                return file.read(size)

            async def give(offset: int, size: int) -> bytes:
                async with lock:
                    return await self.threads.run(lambda: read(offset, size))

            await upload(self.repository, Blob(blob.digest, blob.size, give), report, clock=self.clock)


def _of_manifest(found: Manifest, text: _Text, record: Record) -> _Form:
    """One manifest and what it speaks of. Layers are shown by their diff ids, which for another platform's nobody
    knows."""
    own = len(found.layers) == len(record.diff_ids) and found.config.digest == record.id
    ids = record.diff_ids if own else [layer.digest for layer in found.layers]
    blobs = {blob.digest: blob for blob in (*found.layers, found.config)}
    return _Form(
        tuple(blobs.values()),
        (text,),
        {layer.digest: diff_id for layer, diff_id in zip(found.layers, ids, strict=True)},
    )


def _of_oci(layer: Descriptor) -> Descriptor:
    """A layer as a manifest of OCI's calls it."""
    if layer.media_type != manifests.DOCKER_LAYER_GZIP:
        return layer
    return msgspec.structs.replace(layer, media_type=manifests.OCI_LAYER + "+gzip")


def elsewhere(catalog: Catalog, digest: str, reference: Reference) -> list[str]:
    """Other repositories of the same registry that should have a blob: those by whose digest an image with it is
    known here, which says that it came from there or went there."""
    found = set()
    for key, name in catalog.names.items():
        other = parse(key)
        if other.digest and other.domain == reference.domain and other.path != reference.path:
            record = catalog.images.get(name.image_id)
            if record is not None and digest in record.blobs:
                found.add(other.path)
    return sorted(found)[:_MOUNTS]


def tags_of(catalog: Catalog, reference: Reference) -> list[Reference]:
    """All tags of a repository that are here. Raises NotFound in docker's words where there are none."""
    found = [parse(key) for key in sorted(catalog.names)]
    tags = [each for each in found if each.name == reference.name and each.tag and not each.digest]
    if not tags:
        raise NotFound(f"An image does not exist locally with the tag: {reference.familiar_name}")
    return tags


def pushable(reference: Reference, *, every_tag: bool) -> Reference:
    """One that a push can mean. Raises InvalidArgument."""
    if reference.digest:
        raise InvalidArgument("cannot push a digest reference", hint="give a tag")
    if every_tag and reference.tag:
        raise InvalidArgument("tag can't be used with --all-tags/-a")
    return reference


def wanted_of(catalog: Catalog, reference: Reference, *, every_tag: bool) -> list[Reference]:
    """What a push of `reference` means. Raises NotFound in docker's words."""
    known, wanted = tags_of(catalog, reference), reference.with_default_tag()
    if not every_tag and wanted not in known:
        raise NotFound(f"tag does not exist: {wanted.familiar}")
    return known if every_tag else [wanted]


def short(digest: str) -> str:
    """The 12 digits that progress shows."""
    return digest.partition(":")[2][:12]


async def _together(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """All of them side by side; the first that fails ends the others. Raises what it raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in works]
    except BaseExceptionGroup as group_error:
        raise error_of(group_error) from group_error
    return [task.result() for task in tasks]
