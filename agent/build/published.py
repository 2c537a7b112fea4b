"""Published: what builds came to, in registries, for every host that can reach them: as a deposit (`--cache-to
type=registry`), or inside an image, of the layers that it has (`type=inline`). `--cache-from REFERENCE` takes either.

BuildKit's caches hold no key that could be ours: it names a step by how it is written in BuildKit's own language of
builds. They are refused by name. What a cache does not give is told, and done again: a cache is no reason to fail.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec

from agent.build import carried
from agent.build.cache import Entry
from agent.build.carried import Carried, Step
from agent.build.job import Job, Tools
from agent.build.report import Reporter
from agent.image import document as documents
from agent.image.catalog import Layer
from agent.image.deposit import Deposit, Found
from agent.image.manifest import Descriptor
from agent.registry.auth import Credentials
from shoal import digest as digests
from shoal.errors import Exhausted, InvalidArgument, NotFound, ShoalError, Unsupported
from shoal.reference import Reference

KIND = "application/vnd.shoal.build.cache.v1+json"
_BUILDKIT = "application/vnd.buildkit.cacheconfig.v0"
_ANOTHERS = "build once with --cache-to of this program, to another name"


class _Inline(msgspec.Struct):
    """What BuildKit puts into an image's configuration."""

    foreign: msgspec.Raw = msgspec.field(default=msgspec.Raw(), name="moby.buildkit.cache.v0")


@asynccontextmanager
async def imported(job: Job, tools: Tools, reporter: Reporter) -> AsyncIterator[tuple[Carried, ...]]:
    """The caches that the job names. Their registries can be asked for layers while the block runs."""
    async with AsyncExitStack() as stack:
        wanted = () if job.no_cache else job.cache_from
        yield tuple([await _imported(each, job, tools, reporter, stack) for each in wanted])


async def _imported(reference: Reference, job: Job, tools: Tools, reporter: Reporter, stack: AsyncExitStack) -> Carried:
    try:
        async with reporter.step(f"importing cache from {reference.familiar}") as handle:
            try:
                credentials = await job.login(reference.canonical)
                found = await stack.enter_async_context(tools.images.deposits.open(reference, credentials))
                return Carried(steps_of(found, reference), found.sources)
            except ShoalError as error:
                await handle.write(2, f"{error}\n".encode())
                raise
    except ShoalError:
        return Carried()


async def export(job: Job, tools: Tools, reporter: Reporter, entries: Mapping[str, Entry]) -> None:
    """Send what steps came to where the job wants it. Raises what the registry says, unless that is to be ignored."""
    wanted = job.cache_to
    if wanted is None:
        return
    try:
        async with reporter.step(f"exporting cache to {wanted.reference.familiar}") as handle:
            try:
                credentials: Credentials | None = await job.login(wanted.reference.canonical)
                pushed = await tools.images.remote.push_deposit(
                    wanted.reference, deposit(entries), credentials=credentials, compression=wanted.compression
                )
                await handle.write(1, f"writing cache manifest {pushed.digest}\n".encode())
            except ShoalError as error:
                await handle.write(2, f"{error}\n".encode())
                raise
    except Exhausted:
        raise
    except ShoalError:
        if not wanted.ignore_error:
            raise


def deposit(entries: Mapping[str, Entry]) -> Deposit:
    """These steps with their layers, as they go to a registry."""
    layers = {each.layer.digest: _descriptor(each.layer) for each in entries.values()}

    def configured(leaving: Sequence[Descriptor]) -> bytes:
        left = dict(zip(layers, leaving, strict=True))
        return carried.write({key: _moved(each, left[each.layer.digest]) for key, each in entries.items()})

    return Deposit(KIND, tuple(layers.values()), configured)


def inline(entries: Mapping[str, Entry], layers: Sequence[Layer]) -> dict[str, int]:
    """Of these steps, which of an image's layers each made."""
    places = {each.chain_id: number for number, each in enumerate(layers)}
    found = {key: places[each.layer.chain_id] for key, each in entries.items() if each.layer.chain_id in places}
    return dict(sorted(found.items()))


def steps_of(found: Found, reference: Reference) -> dict[str, Step]:
    """What a registry has under that name. Raises NotFound for an image without a cache, Unsupported for what is none
    of ours."""
    name = reference.familiar
    if found.kind == KIND:
        return carried.read([found.config])
    if found.kind == _BUILDKIT:
        raise Unsupported(f"{name} is a cache of BuildKit, whose steps go by other keys", hint=_ANOTHERS)
    if not found.is_image:
        raise Unsupported(f"{name} is no build cache but {found.kind[:200]!r}", hint=_ANOTHERS)
    document = documents.parse_document(found.config)
    if document.cached:
        return _of_image(document.cached, document, found.layers)
    if msgspec.json.decode(found.config, type=_Inline).foreign:
        raise Unsupported(f"the cache in the image {name} is BuildKit's, whose steps go by other keys", hint=_ANOTHERS)
    raise NotFound(f"the image {name} has no cache in it", hint="build and push it with --cache-to type=inline")


def _of_image(cached: Mapping[str, int], document: documents.Document, layers: Sequence[Descriptor]) -> dict[str, Step]:
    diff_ids, makings = document.rootfs.diff_ids, document.makings()
    if not len(diff_ids) == len(layers) == len(makings) or not all(0 <= each < len(layers) for each in cached.values()):
        raise InvalidArgument("the cache in the image speaks of other layers than the image has")
    chain = digests.chain_ids(diff_ids)

    def step(number: int) -> Step:
        blob, (title, made_at_ns) = layers[number], makings[number]
        layer = Layer(diff_ids[number], chain[number], blob.digest, blob.media_type, blob.size, 0)
        return Step(layer, title, made_at_ns)

    return {key: step(number) for key, number in cached.items()}


def _descriptor(layer: Layer) -> Descriptor:
    return Descriptor(layer.media_type, layer.digest, layer.blob_bytes)


def _moved(entry: Entry, leaving: Descriptor) -> Entry:
    """With its layer as it leaves this host."""
    layer = msgspec.structs.replace(
        entry.layer, digest=leaving.digest, media_type=leaving.media_type, blob_bytes=leaving.size
    )
    return msgspec.structs.replace(entry, layer=layer)
