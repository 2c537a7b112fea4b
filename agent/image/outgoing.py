"""Images on their way out: what other nodes can have from here, blob by blob. The other way is `incoming`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from agent.image.content import Content
from agent.image.holdings import Holdings
from agent.image.threads import Threads
from shoal.errors import InvalidArgument, NotFound

_READ = 1 << 18


class Outgoing:
    def __init__(self, content: Content, holdings: Holdings, *, threads: Threads) -> None:
        self._content = content
        self._holdings = holdings
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
        return size, kind, self._stream(digest, offset)

    async def _stream(self, digest: str, offset: int) -> AsyncGenerator[bytes, None]:
        blob = await self._threads.run(lambda: self._content.open(digest))
        try:
            blob.seek(offset)
            while data := await self._threads.run(lambda: blob.read(_READ)):
                yield data
        finally:
            blob.close()
