"""One blob from several sources into the content store. A transfer that breaks goes on where it broke, from the next
source, or after all had their turn from the first again; a source that sends wrong bytes is not asked again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import aclosing

from agent.image.content import CHUNK, Content, Writer
from agent.image.manifest import MAX_DOCUMENT_BYTES, Descriptor
from agent.image.source import BlobSource
from agent.image.threads import Threads
from shoal import digest as digests
from shoal.backoff import Backoff
from shoal.clock import Clock
from shoal.errors import Exhausted, InvalidArgument, NotFound, ShoalError, Unavailable

# How often the sources are gone through before the blob is given up; with the waits below about 5 s.
ROUNDS = 5
_FIRST_WAIT_S = 0.2
_LONGEST_WAIT_S = 5.0


class Downloader:
    def __init__(self, content: Content, *, threads: Threads, clock: Clock) -> None:
        self._content = content
        self._threads = threads
        self._clock = clock

    async def fetch(self, wanted: Descriptor, sources: Sequence[BlobSource], report: Callable[[int], None]) -> bool:
        """Have the blob; false when it was here already. `report` hears how many bytes are there.

        Raises what the last source that was tried had to say; what came is left for the next try (`partial`).
        """
        async with self._content.alone(wanted.digest):
            if self.has(wanted):
                return False
            writer = await self._threads.run(lambda: self._content.resumed(wanted.digest, wanted.size))
            try:
                await self._fill(writer, wanted.digest, sources, report)
                await self._threads.run(lambda: self._content.arrived(wanted.digest))
            finally:
                await self._threads.run(writer.leave)
        return True

    def has(self, wanted: Descriptor) -> bool:
        """Whether the blob is here. Raises InvalidArgument when it is not as long as `wanted` says."""
        if wanted.digest not in self._content:
            return False
        size = self._content.size(wanted.digest)
        if size != wanted.size:
            raise InvalidArgument(f"{wanted.digest} has {size} bytes, {wanted.size} were announced")
        return True

    async def document(self, wanted: Descriptor, sources: Sequence[BlobSource]) -> bytes:
        """A small blob, kept and read."""
        if wanted.size > MAX_DOCUMENT_BYTES:
            raise InvalidArgument(f"{wanted.digest} should be a small document and claims {wanted.size} bytes")
        await self.fetch(wanted, sources, lambda _: None)
        return await self._threads.run(lambda: self._content.read(wanted.digest, limit_bytes=MAX_DOCUMENT_BYTES))

    async def keep(self, data: bytes) -> str:
        """Store a document that is here; its digest."""
        digest = digests.of(data)

        def store() -> None:
            writer = self._content.writer(digest=digest, size=len(data))
            try:
                writer.write(data)
                writer.commit()
            finally:
                writer.abort()

        async with self._content.alone(digest):
            if digest not in self._content:
                await self._threads.run(store)
        return digest

    async def _fill(
        self, writer: Writer, digest: str, sources: Sequence[BlobSource], report: Callable[[int], None]
    ) -> None:
        backoff = Backoff(_FIRST_WAIT_S, _LONGEST_WAIT_S)
        problem: ShoalError = NotFound(f"nobody has the content {digest}")
        useful = list(sources)
        for attempt in range(ROUNDS):
            if attempt and useful:
                await self._clock.sleep(backoff.next())
            for source in list(useful):
                try:
                    if not writer.complete:
                        await self._copy(source, writer, digest, report)
                    await self._threads.run(writer.verify)
                except Unavailable as error:
                    problem = error
                except Exhausted:
                    raise
                except InvalidArgument as error:  # wrong bytes: its own, or what an earlier transfer left
                    problem = error
                    if not writer.inherited:
                        useful.remove(source)
                    await self._threads.run(writer.restart)
                except ShoalError as error:
                    problem = error
                    useful.remove(source)
                else:
                    await self._threads.run(writer.commit)
                    return
        raise problem

    async def _copy(self, source: BlobSource, writer: Writer, digest: str, report: Callable[[int], None]) -> None:
        """The rest of the blob, to the disk in pieces of about a mebibyte. What came before a failure stays."""
        _, _, chunks = await source.open(digest, writer.offset)
        held: list[bytes] = []
        size = 0
        async with aclosing(chunks):
            try:
                async for chunk in chunks:
                    held.append(chunk)
                    size += len(chunk)
                    if size >= CHUNK:
                        await self._flush(held, writer)
                        size = 0
                        report(writer.offset)
            except Unavailable:
                await self._flush(held, writer)
                raise
        await self._flush(held, writer)
        report(writer.offset)

    async def _flush(self, held: list[bytes], writer: Writer) -> None:
        pieces = held.copy()
        held.clear()
        if pieces:
            await self._threads.run(lambda: writer.write(b"".join(pieces)))


async def read_document(sources: Sequence[BlobSource], digest: str) -> tuple[bytes, str]:
    """A document of unknown size by its digest, and its media type, from the first source that has it whole."""
    problem: ShoalError = NotFound(f"nobody has the image {digest}")
    for source in sources:
        try:
            return await _read(source, digest)
        except ShoalError as error:
            problem = error
    raise problem


async def _read(source: BlobSource, digest: str) -> tuple[bytes, str]:
    _, media_type, chunks = await source.open(digest, 0)
    data = b""
    async with aclosing(chunks):
        async for chunk in chunks:
            data += chunk
            if len(data) > MAX_DOCUMENT_BYTES:
                raise InvalidArgument(f"{digest} should be a small document and has more than {len(data)} bytes")
    if digests.of(data) != digest:
        raise InvalidArgument(f"the content that came for {digest} is another")
    return data, media_type
