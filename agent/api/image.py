"""ImageService: images of this host over RPC. Pulls and pushes stream their progress; imports and loads stream their
bytes in."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import grpc.aio

from agent.api.upload import heard_out
from agent.container.prune import chooser
from agent.image.images import Images
from agent.image.removal import User
from agent.image.source import Progress, Report
from agent.registry.auth import Credentials
from shoal import codec
from shoal import reference as references
from shoal.errors import InvalidArgument
from shoal.model.image import Image
from shoal.reference import DEFAULT_DOMAIN
from shoal.v1 import engine_pb2 as wire
from shoal.v1 import types_pb2
from shoal.v1.engine_pb2_grpc import ImageServiceServicer

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

# Steps of a download or an unpacking that reach the client, per layer.
_STEPS = 50
_COUNTED = ("Downloading", "Extracting", "Compressing", "Pushing")
T = TypeVar("T")


class ImageService(ImageServiceServicer):
    """`users` tells the containers that were made from an image id: (id, name, running)."""

    def __init__(self, images: Images, users: Callable[[str], Sequence[User]]) -> None:
        self._images = images
        self._users = users

    async def PullImage(
        self, request: wire.PullImageRequest, _context: Context
    ) -> AsyncIterator[wire.PullImageResponse]:
        credentials = _credentials(request.username, request.password)
        references = [request.reference]
        if request.all_tags:
            tags = await self._images.remote.tags(request.reference, credentials)
            references = [f"{request.reference}:{tag}" for tag in tags]
        for reference in references:
            if request.all_tags:
                yield wire.PullImageResponse(tag=reference.rpartition(":")[2])
            pull = functools.partial(self._images.pull, reference, platform=request.platform, credentials=credentials)
            async for step in _followed(lambda report, pull=pull: pull(progress=report)):  # type: ignore[misc]
                if isinstance(step, Progress):
                    yield wire.PullImageResponse(layer=_progress(step))
                else:
                    yield wire.PullImageResponse(
                        done=wire.PullDone(
                            image_id=step.image_id,
                            reference=step.reference,
                            digest=step.digest,
                            up_to_date=step.up_to_date,
                        )
                    )

    async def PushImage(
        self, request: wire.PushImageRequest, _context: Context
    ) -> AsyncIterator[wire.PushImageResponse]:
        remote = self._images.remote
        repository = remote.repository(request.reference, every_tag=request.all_tags)
        yield wire.PushImageResponse(repository=repository)  # where it would go, also of what is not here
        wanted = remote.wanted(request.reference, every_tag=request.all_tags)
        credentials = _credentials(request.credentials.username, request.credentials.password)
        for tag in wanted:
            push = functools.partial(
                remote.push,
                tag,
                credentials=credentials,
                compression=request.compression,
                platform=request.platform,
            )
            async for step in _followed(lambda report, push=push: push(report=report)):  # type: ignore[misc]
                if isinstance(step, Progress):
                    yield wire.PushImageResponse(layer=_progress(step))
                else:
                    done = wire.PushDone(tag=step.tag, digest=step.digest, size_bytes=step.size)
                    yield wire.PushImageResponse(done=done)

    async def ResolveImage(self, request: wire.ResolveImageRequest, _context: Context) -> wire.ResolveImageResponse:
        credentials = _credentials(request.credentials.username, request.credentials.password)
        return wire.ResolveImageResponse(digest=await self._images.remote.resolve(request.reference, credentials))

    async def GetManifest(self, request: wire.GetManifestRequest, _context: Context) -> wire.GetManifestResponse:
        credentials = _credentials(request.credentials.username, request.credentials.password)
        found = await self._images.indexes.look(references.parse(request.reference), credentials)
        platform = found.platform
        return wire.GetManifestResponse(
            data=found.data,
            media_type=found.media_type,
            digest=found.digest,
            repository=found.reference.name,
            os=platform.os if platform is not None else "",
            architecture=platform.architecture if platform is not None else "",
            variant=platform.variant if platform is not None else "",
        )

    async def PutIndex(self, request: wire.PutIndexRequest, _context: Context) -> wire.PutIndexResponse:
        credentials = _credentials(request.credentials.username, request.credentials.password)
        members = [references.parse(each) for each in request.members]
        wanted = references.parse(request.reference)
        digest = await self._images.indexes.publish(wanted, request.data, members, credentials)
        return wire.PutIndexResponse(digest=digest)

    async def CheckLogin(self, request: wire.CheckLoginRequest, _context: Context) -> wire.CheckLoginResponse:
        credentials = _credentials(request.credentials.username, request.credentials.password)
        if credentials is None:
            raise InvalidArgument("a login needs a user name")
        token = await self._images.remote.check_login(request.registry or DEFAULT_DOMAIN, credentials)
        return wire.CheckLoginResponse(identity_token=token)

    async def SearchImages(self, request: wire.SearchImagesRequest, _context: Context) -> wire.SearchImagesResponse:
        credentials = _credentials(request.credentials.username, request.credentials.password)
        found = await self._images.remote.search(request.term, limit=request.limit or 25, credentials=credentials)
        return wire.SearchImagesResponse(
            images=[
                wire.FoundImage(
                    name=each.name, description=each.description or "", stars=each.stars, official=each.official
                )
                for each in found
            ]
        )

    async def ImportImage(
        self, requests: AsyncIterator[wire.ImportImageRequest], _context: Context
    ) -> wire.ImportImageResponse:
        first = await anext(aiter(requests), None)
        if first is None or first.WhichOneof("request") != "open":
            raise InvalidArgument("an import begins with what is to be imported (`open`)")
        wanted = first.open
        async with heard_out(requests):
            image_id = await self._images.import_image(
                _import_chunks(requests),
                reference=wanted.reference,
                message=wanted.message,
                changes=list(wanted.changes),
                platform=wanted.platform,
            )
        return wire.ImportImageResponse(image_id=image_id)

    async def LoadImages(
        self, requests: AsyncIterator[wire.LoadImagesRequest], _context: Context
    ) -> wire.LoadImagesResponse:
        async with heard_out(requests):
            loaded = await self._images.load(_load_chunks(requests))
        return wire.LoadImagesResponse(
            images=[wire.LoadedImage(reference=reference, image_id=image_id) for reference, image_id in loaded]
        )

    async def TagImage(self, request: wire.TagImageRequest, _context: Context) -> wire.TagImageResponse:
        await self._images.tag(request.source, request.target)
        return wire.TagImageResponse()

    async def RemoveImage(self, request: wire.RemoveImageRequest, _context: Context) -> wire.RemoveImageResponse:
        removed = await self._images.remove(
            request.reference, force=request.force, prune=not request.no_prune, users=self._users
        )
        return wire.RemoveImageResponse(untagged=removed.untagged, deleted=removed.deleted)

    async def PruneImages(self, request: wire.PruneImagesRequest, _context: Context) -> wire.PruneImagesResponse:
        named = chooser([(each.key, each.value) for each in request.filters])

        def chosen(image: Image) -> bool:
            return named(image.config.labels, image.meta.created_at_ns)

        removed = await self._images.prune(all=request.all, chosen=chosen, users=self._users)
        return wire.PruneImagesResponse(
            images=[wire.RemoveImageResponse(untagged=each.untagged, deleted=each.deleted) for each in removed],
            reclaimed_bytes=sum(each.freed_bytes for each in removed),
        )

    async def SaveImages(
        self, request: wire.SaveImagesRequest, _context: Context
    ) -> AsyncIterator[wire.SaveImagesResponse]:
        async with contextlib.aclosing(self._images.save(request.references)) as pieces:
            async for piece in pieces:
                yield wire.SaveImagesResponse(chunk=piece)

    async def GetImageHistory(
        self, request: wire.GetImageHistoryRequest, _context: Context
    ) -> wire.GetImageHistoryResponse:
        lines = self._images.history(request.reference)
        return wire.GetImageHistoryResponse(lines=[codec.to_wire(each, wire.HistoryLine) for each in lines])

    async def GetImage(self, request: wire.GetImageRequest, _context: Context) -> wire.GetImageResponse:
        image = await self._images.get(request.reference)
        folders = wire.Folders(layers=self._images.layers(image.meta.id))
        return wire.GetImageResponse(image=codec.to_wire(image, types_pb2.Image), folders=folders)

    async def ListImages(self, request: wire.ListImagesRequest, _context: Context) -> wire.ListImagesResponse:
        filters = [(each.key, each.value) for each in request.filters]
        found = await self._images.list(request.reference, filters, all=request.all)
        return wire.ListImagesResponse(images=[codec.to_wire(image, types_pb2.Image) for image in found])


def _credentials(username: str, password: str) -> Credentials | None:
    return Credentials(username, password) if username else None


async def _followed(start: Callable[[Report], Coroutine[Any, Any, T]]) -> AsyncIterator[Progress | T]:
    """The progress of what `start` does, then its result."""
    news: asyncio.Queue[Progress | None] = asyncio.Queue()
    work = asyncio.ensure_future(start(_Thinned(news).put))
    work.add_done_callback(lambda _: news.put_nowait(None))
    try:
        while (step := await news.get()) is not None:
            yield step
        yield await work
    finally:
        if not work.done():
            # The client is gone: what came so far goes too, before this call ends.
            work.cancel()
            await asyncio.wait({work})


def _progress(step: Progress) -> wire.LayerProgress:
    return wire.LayerProgress(
        id=step.id, status=step.status, current_bytes=step.current_bytes, total_bytes=step.total_bytes
    )


class _Thinned:
    """Lets every change of status through, and of the counting ones `_STEPS` per layer: a client on a slow line must
    not lag behind by megabytes of progress."""

    def __init__(self, queue: asyncio.Queue[Progress | None]) -> None:
        self._queue = queue
        self._shown: dict[str, tuple[str, int]] = {}

    def put(self, step: Progress) -> None:
        share = step.current_bytes * _STEPS // step.total_bytes if step.total_bytes else 0
        now = (step.status, share if step.status in _COUNTED else 0)
        if self._shown.get(step.id) != now:
            self._shown[step.id] = now
            self._queue.put_nowait(step)


async def _import_chunks(requests: AsyncIterator[wire.ImportImageRequest]) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request.chunk


async def _load_chunks(requests: AsyncIterator[wire.LoadImagesRequest]) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request.chunk
