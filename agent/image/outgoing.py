"""Images on their way out: blob by blob to other nodes, or together in an archive. The other way is `incoming`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from agent.image import contents
from agent.image.compression import Compression, detect
from agent.image.content import Content
from agent.image.contents import Asked, Packed
from agent.image.document import Document
from agent.image.holdings import Holdings
from agent.image.manifest import Descriptor
from agent.image.pull import Puller
from agent.image.threads import Threads
from shoal import tarball
from shoal.errors import InvalidArgument, NotFound

_READ = 1 << 18


class Outgoing:
    def __init__(self, content: Content, holdings: Holdings, puller: Puller, *, threads: Threads) -> None:
        self._content = content
        self._holdings = holdings
        self._puller = puller
        self._threads = threads

    def held(self) -> Sequence[tuple[str, str]]:
        """(canonical reference, manifest digest) of all that other nodes can have from here; "" for nameless ones."""
        catalog = self._holdings.catalog
        held = [(key, name.digest) for key, name in catalog.names.items()]
        named = {digest for _, digest in held}
        return held + [("", record.digest) for record in catalog.images.values() if record.digest not in named]

    async def read_blob(self, digest: str, offset: int = 0) -> tuple[int, str, AsyncGenerator[bytes, None]]:
        """A manifest, configuration or layer of an image that is here, from `offset` on (as BlobSource.open)."""
        images = self._holdings.catalog.images.values()
        kind = next((record.blobs[digest] for record in images if digest in record.blobs), None)
        if kind is None:
            raise NotFound(f"no content {digest[:200]} on this host")
        size = self._content.size(digest)
        if not 0 <= offset <= size:
            raise InvalidArgument(f"content {digest} has {size} bytes, there is nothing at {offset}")
        return size, kind, self.content(digest, offset)

    async def archive(self, wanted: Sequence[tuple[Asked, Document]]) -> AsyncGenerator[bytes, None]:
        """Of these images with their configurations, always the same bytes for the same ones. Only while
        `Images.working`."""
        images = [await self._packed(asked, document) for asked, document in wanted]
        documents, blobs = contents.documents(images), contents.blobs(images)
        members: dict[str, bytes | Descriptor] = {**documents}
        members.update({contents.path(each.digest): each for each in blobs})
        for name, member in sorted(members.items()):
            if isinstance(member, bytes):
                yield tarball.file_header(name, len(member)) + member + tarball.padding(len(member))
                continue
            yield tarball.file_header(name, member.size)
            async for piece in self.content(member.digest):
                yield piece
            yield tarball.padding(member.size)
        yield tarball.END

    async def _packed(self, asked: Asked, document: Document) -> Packed:
        manifest, data = await self._puller.manifest(asked.record, document)

        def compressions() -> list[Compression]:
            found = []
            for layer in manifest.layers:
                with self._content.open(layer.digest) as blob:
                    found.append(detect(blob.read(6)))
            return found

        return contents.packed(manifest, data, await self._threads.run(compressions), asked.names)

    async def content(self, digest: str, offset: int = 0) -> AsyncGenerator[bytes, None]:
        """A blob that is here, whatever it belongs to."""
        blob = await self._threads.run(lambda: self._content.open(digest))
        try:
            blob.seek(offset)
            while data := await self._threads.run(lambda: blob.read(_READ)):
                yield data
        finally:
            blob.close()
