"""BuildService: builds of this host over RPC. The context comes in first, as far as it is not here; then events go out
as they happen, and the client's pace is the build's."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc.aio
import msgspec

from agent.api.counterpart import Counterpart
from agent.build import carried, report
from agent.build.builder import Builder
from agent.build.carried import Carried, Carrier, Export
from agent.build.context import Contexts
from agent.build.flags import Network
from agent.build.job import Job, Output
from agent.build.run import Setting
from agent.build.tree import Entry, Tree
from shoal import codec
from shoal import reference as references
from shoal.errors import InvalidArgument, Unsupported
from shoal.model.container import Ulimit
from shoal.v1 import build_pb2 as wire
from shoal.v1.build_pb2_grpc import BuildServiceServicer

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

# Events that wait for a client before the build waits for it.
_AHEAD = 256
_MAX_ENTRIES = 1_000_000
# Small files that are written in one go of a thread.
_TOGETHER = 64
_OUTPUTS = ("", "image", "tar", "archive", "none")


class BuildService(BuildServiceServicer):
    def __init__(self, builder: Builder) -> None:
        self._builder = builder

    async def BuildImage(
        self, requests: AsyncIterator[wire.BuildImageRequest], _context: Context
    ) -> AsyncIterator[wire.BuildImageResponse]:
        first = await anext(aiter(requests), None)
        if first is None or first.WhichOneof("request") != "open":
            raise InvalidArgument("a build begins with what is to be built (`open`)")
        opening = first.open
        if opening.output not in _OUTPUTS:
            raise Unsupported(f"build output {opening.output!r} is not supported")
        entries = await _entries(requests)
        digests = {each.digest for each in entries if each.digest}
        contexts = self._builder.contexts
        async with _using(contexts, opening.context, digests) as missing:
            yield wire.BuildImageResponse(
                wanted=wire.WantedFiles(digests=[bytes.fromhex(each[7:]) for each in missing])
            )
            await _receive(requests, contexts, missing)
            events = _Events()
            client = Counterpart(requests, events.put)
            listening = asyncio.ensure_future(client.listen())
            job = _job(opening, Tree(entries), client)
            if opening.output:
                job = msgspec.structs.replace(job, output=Output(opening.output), take=events.files)
            if opening.cache_mode:
                job = msgspec.structs.replace(job, carrier=_carrier(opening, events))
            building = asyncio.ensure_future(self._builder.build(job, events.tell))
            building.add_done_callback(lambda _: events.end())
            try:
                async for event in events.all():
                    yield event
                image_id = await building
            finally:
                # Where the client is gone, what runs for it ends before this call does.
                for each in (building, listening):
                    each.cancel()
                await asyncio.wait({building, listening})
            yield wire.BuildImageResponse(done=wire.BuildDone(image_id=image_id))

    async def PruneBuilds(self, request: wire.PruneBuildsRequest, _context: Context) -> wire.PruneBuildsResponse:
        pruned = await self._builder.prune(unused_s=request.unused_s)
        return wire.PruneBuildsResponse(steps=pruned.titles, reclaimed_bytes=pruned.freed_bytes)


class _Events:
    """What goes out to a client; who tells more than it reads waits."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[wire.BuildImageResponse | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(_AHEAD)

    async def tell(self, event: report.Event) -> None:
        await self.put(_event(event))

    async def files(self, chunk: bytes) -> None:
        await self.put(wire.BuildImageResponse(tar=chunk))

    async def cache_list(self, data: bytes) -> None:
        await self.put(wire.BuildImageResponse(cache_list=data))

    async def cache_blob(self, digest: str, data: bytes) -> None:
        part = wire.ContextFile(digest=bytes.fromhex(digest.partition(":")[2]), data=data, last=not data)
        await self.put(wire.BuildImageResponse(cache_blob=part))

    async def put(self, response: wire.BuildImageResponse) -> None:
        await self._room.acquire()
        self._queue.put_nowait(response)

    def end(self) -> None:
        self._queue.put_nowait(None)

    async def all(self) -> AsyncIterator[wire.BuildImageResponse]:
        while (response := await self._queue.get()) is not None:
            self._room.release()
            yield response


@asynccontextmanager
async def _using(contexts: Contexts, name: str, digests: set[str]) -> AsyncIterator[list[str]]:
    """Around a build: the files stay, and what it yields are those that are missing. What it costs to forget those of
    the build before is paid in a thread."""
    held = contexts.using(_checked(name), digests)
    missing = await asyncio.to_thread(held.__enter__)
    try:
        yield missing
    finally:
        await asyncio.to_thread(held.__exit__, None, None, None)


def _checked(name: str) -> str:
    if name and (not name.isalnum() or not name.isascii() or len(name) > 64):
        raise InvalidArgument(f"invalid name of a context {name[:100]!r}", hint="it has letters and digits alone")
    return name


async def _entries(requests: AsyncIterator[wire.BuildImageRequest]) -> list[Entry]:
    entries: list[Entry] = []
    async for request in requests:
        if request.WhichOneof("request") != "entries":
            raise InvalidArgument("the entries of the context come before anything else")
        part = request.entries
        columns = (part.paths, part.modes, part.sizes, part.modified_at_ns, part.contents)
        if len({len(each) for each in columns}) != 1 or len(entries) + len(part.paths) > _MAX_ENTRIES:
            raise InvalidArgument(f"the entries of the context are torn, or more than {_MAX_ENTRIES}")
        entries += [_entry(*each) for each in zip(*columns, strict=True)]
        if part.last:
            break
    return entries


def _entry(path: bytes, mode: int, size: int, mtime_ns: int, content: bytes) -> Entry:
    name = os.fsdecode(path)
    if not name or any(part in ("", ".", "..") for part in name.split("/")) or "\0" in name:
        raise InvalidArgument(f"invalid path in the context: {name[:200]!r}")
    kind = mode & 0o170000
    if kind == 0o100000:
        if len(content) != 32:
            raise InvalidArgument(f"{name[:200]!r} of the context comes without a digest")
        return Entry(name, mode, size, mtime_ns, "sha256:" + content.hex())
    if kind == 0o120000:
        return Entry(name, mode, 0, mtime_ns, "", os.fsdecode(content))
    if kind != 0o040000:
        raise InvalidArgument(f"{name[:200]!r} of the context is neither file, folder nor link")
    return Entry(name, mode, 0, mtime_ns)


async def _receive(requests: AsyncIterator[wire.BuildImageRequest], contexts: Contexts, missing: list[str]) -> None:
    """The files that were wanted, in that order."""
    incoming = _parts(requests)
    small: list[tuple[bytes, str]] = []
    for digest in missing:
        part = await _part(incoming, digest)
        if part.last:
            small.append((part.data, digest))
            if len(small) >= _TOGETHER:
                await asyncio.to_thread(_store, contexts, small)
                small = []
            continue
        writer = await asyncio.to_thread(contexts.writer, digest)
        try:
            rest = part
            while True:
                await asyncio.to_thread(writer.write, rest.data)
                if rest.last:
                    break
                rest = await _part(incoming, digest)
            await asyncio.to_thread(writer.commit)
        finally:
            writer.abort()
    if small:
        await asyncio.to_thread(_store, contexts, small)


def _store(contexts: Contexts, files: list[tuple[bytes, str]]) -> None:
    for data, digest in files:
        contexts.store(data, digest)


async def _parts(requests: AsyncIterator[wire.BuildImageRequest]) -> AsyncIterator[wire.ContextFile]:
    """Of files, one by one, whatever they were sent together with."""
    async for request in requests:
        if request.WhichOneof("request") != "files":
            return
        for part in request.files.files:
            yield part


async def _part(incoming: AsyncIterator[wire.ContextFile], digest: str) -> wire.ContextFile:
    part = await anext(incoming, None)
    if part is None or part.digest.hex() != digest[7:]:
        raise InvalidArgument(f"the file {digest} of the context was to come")
    return part


def _job(opening: wire.BuildOpen, tree: Tree, client: Counterpart) -> Job:
    try:
        network = Network(opening.network or "default")
    except ValueError as error:
        raise Unsupported(
            f"network {opening.network} is not supported for a build", hint="use default, none or host"
        ) from error
    return Job(
        dockerfile=opening.dockerfile.decode(errors="surrogateescape"),
        name=opening.dockerfile_name or "Dockerfile",
        tree=tree,
        target=opening.target,
        arguments=dict(opening.arguments),
        labels=dict(opening.labels),
        tags=tuple(_tag(each) for each in opening.tags),
        no_cache=opening.no_cache,
        no_cache_stages=frozenset(each.lower() for each in opening.no_cache_stages),
        pull=opening.pull,
        platform=opening.platform,
        setting=Setting(
            network=network,
            hosts=tuple(opening.hosts),
            shm_size_bytes=opening.shm_size_bytes,
            ulimits=tuple(codec.from_wire(each, Ulimit) for each in opening.ulimits),
        ),
        secrets=dict(opening.secrets),
        epoch=opening.epoch if opening.HasField("epoch") else None,
        debug=opening.debug,
        login=client.login,
        ssh={each: partial(client.ssh, each) for each in opening.ssh},
        carried=(Carried(carried.read(opening.caches), (client,)),),
        cache_from=tuple(references.parse(each).with_default_tag() for each in opening.cache_from),
        cache_to=_export(opening.cache_to) if opening.HasField("cache_to") else None,
        inline=opening.cache_inline,
    )


def _export(wanted: wire.CacheExport) -> Export:
    reference = references.parse(wanted.reference).with_default_tag()
    if reference.digest:
        raise InvalidArgument(f"a cache cannot go to the digest {wanted.reference}", hint="give a name and a tag")
    return Export(reference, wanted.mode == "max", wanted.compression, wanted.ignore_error)


def _carrier(opening: wire.BuildOpen, events: _Events) -> Carrier:
    if opening.cache_mode not in ("min", "max"):
        raise InvalidArgument(f"invalid mode of a cache {opening.cache_mode!r}", hint="use min or max")
    held = frozenset(f"sha256:{each.hex()}" for each in opening.cache_held)
    return Carrier(opening.cache_mode == "max", held, events.cache_list, events.cache_blob)


def _tag(text: str) -> references.Reference:
    tag = references.parse(text).with_default_tag()
    if tag.digest:
        raise InvalidArgument(f"cannot tag an image as {text}", hint="give a name and a tag")
    return tag


def _event(event: report.Event) -> wire.BuildImageResponse:
    match event:
        case report.Began():
            return wire.BuildImageResponse(step=wire.BuildStep(number=event.number, title=event.title))
        case report.Wrote():
            output = wire.BuildOutput(number=event.number, stderr=event.stream == 2, data=event.data)
            return wire.BuildImageResponse(output=output)
        case report.Ended():
            end = wire.BuildStepEnd(
                number=event.number, taken_ns=event.taken_ns, cached=event.cached, failed=event.failed
            )
            return wire.BuildImageResponse(step_end=end)
        case report.Shown():
            return wire.BuildImageResponse(excerpt=event.text)
        case report.Left():
            return wire.BuildImageResponse(debug_image=event.image_id)
