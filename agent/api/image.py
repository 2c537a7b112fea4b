"""ImageService: images of this host over RPC. Pulls stream their progress; imports and loads stream their bytes in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any

import grpc.aio

from agent.image.images import Images
from agent.image.removal import User
from agent.image.source import Progress
from agent.registry.auth import Credentials
from shoal import codec
from shoal.errors import InvalidArgument
from shoal.v1 import engine_pb2 as wire
from shoal.v1 import types_pb2
from shoal.v1.engine_pb2_grpc import ImageServiceServicer

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

# Steps of a download or an unpacking that reach the client, per layer.
_STEPS = 50
_COUNTED = ("Downloading", "Extracting")


class ImageService(ImageServiceServicer):
    """`users` tells the containers that were made from an image id: (id, name, running)."""

    def __init__(self, images: Images, users: Callable[[str], Sequence[User]]) -> None:
        self._images = images
        self._users = users

    async def PullImage(
        self, request: wire.PullImageRequest, _context: Context
    ) -> AsyncIterator[wire.PullImageResponse]:
        credentials = Credentials(request.username, request.password) if request.username else None
        news: asyncio.Queue[Progress | None] = asyncio.Queue()
        pull = asyncio.ensure_future(
            self._images.pull(
                request.reference, platform=request.platform, credentials=credentials, progress=_Thinned(news).put
            )
        )
        pull.add_done_callback(lambda _: news.put_nowait(None))
        try:
            while (step := await news.get()) is not None:
                yield wire.PullImageResponse(
                    layer=wire.LayerProgress(
                        id=step.id,
                        status=step.status,
                        current_bytes=step.current_bytes,
                        total_bytes=step.total_bytes,
                    )
                )
            done = await pull
        finally:
            if not pull.done():
                # The client is gone: what came so far goes too, before this call ends.
                pull.cancel()
                await asyncio.wait({pull})
        yield wire.PullImageResponse(
            done=wire.PullDone(
                image_id=done.image_id, reference=done.reference, digest=done.digest, up_to_date=done.up_to_date
            )
        )

    async def ImportImage(
        self, requests: AsyncIterator[wire.ImportImageRequest], _context: Context
    ) -> wire.ImportImageResponse:
        first = await anext(aiter(requests), None)
        if first is None or first.WhichOneof("request") != "open":
            raise InvalidArgument("an import begins with what is to be imported (`open`)")
        wanted = first.open
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
        loaded = await self._images.load(_load_chunks(requests))
        return wire.LoadImagesResponse(
            images=[wire.LoadedImage(reference=reference, image_id=image_id) for reference, image_id in loaded]
        )

    async def TagImage(self, request: wire.TagImageRequest, _context: Context) -> wire.TagImageResponse:
        await self._images.tag(request.source, request.target)
        return wire.TagImageResponse()

    async def RemoveImage(self, request: wire.RemoveImageRequest, _context: Context) -> wire.RemoveImageResponse:
        untagged, deleted = await self._images.remove(request.reference, force=request.force, users=self._users)
        return wire.RemoveImageResponse(untagged=untagged, deleted=deleted)

    async def GetImage(self, request: wire.GetImageRequest, _context: Context) -> wire.GetImageResponse:
        image = await self._images.get(request.reference)
        return wire.GetImageResponse(image=codec.to_wire(image, types_pb2.Image))

    async def ListImages(self, request: wire.ListImagesRequest, _context: Context) -> wire.ListImagesResponse:
        filters = [(each.key, each.value) for each in request.filters]
        found = await self._images.list(request.reference, filters)
        return wire.ListImagesResponse(images=[codec.to_wire(image, types_pb2.Image) for image in found])


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
