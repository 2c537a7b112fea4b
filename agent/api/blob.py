"""BlobService: content of this host's images to other nodes, by digest. Only what an image of the catalog consists
of; the server it hangs on admits members of the cluster alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import grpc.aio

from agent.image.images import Images
from shoal.v1 import blob_pb2 as wire
from shoal.v1.blob_pb2_grpc import BlobServiceServicer

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]


class BlobService(BlobServiceServicer):
    def __init__(self, images: Images) -> None:
        self._images = images

    async def ReadBlob(self, request: wire.ReadBlobRequest, _context: Context) -> AsyncIterator[wire.ReadBlobResponse]:
        size, media_type, chunks = await self._images.read_blob(request.digest, request.offset)
        yield wire.ReadBlobResponse(size_bytes=size, media_type=media_type)
        async with aclosing(chunks):
            async for chunk in chunks:
                yield wire.ReadBlobResponse(chunk=chunk)
