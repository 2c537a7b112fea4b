"""Another node as a source of blobs, over mTLS: how an image spreads in a cluster that has no registry."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import grpc.aio

from shoal import rpc
from shoal.errors import Unavailable
from shoal.tls import Identity
from shoal.v1 import blob_pb2 as wire
from shoal.v1.blob_pb2_grpc import BlobServiceStub

# Between two pieces; a node that is gone must not hold a task up for long, others may have the image.
_IDLE_S = 20.0


class Peer:
    """A BlobSource over the BlobService behind `channel`, which stays the caller's."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._stub = BlobServiceStub(channel)

    @classmethod
    def dial(cls, address: str, *, node_id: str, identity: Identity) -> Peer:
        """The node `node_id`, whose agent listens on `address` ("HOST:PORT"); `close` it afterwards."""
        return cls(rpc.dial(address, identity=identity, server_name=f"{node_id}.node.shoal"))

    async def close(self) -> None:
        await self._channel.close()

    async def open(self, digest: str, offset: int) -> tuple[int, str, AsyncGenerator[bytes, None]]:
        call = self._stub.ReadBlob(wire.ReadBlobRequest(digest=digest, offset=offset))
        try:
            first = await _next(call)
            if first is None:
                raise Unavailable(f"a node ended the transfer of {digest} before it began")
        except BaseException:
            call.cancel()
            raise
        return first.size_bytes, first.media_type, _chunks(call, first)


async def _chunks(
    call: grpc.aio.UnaryStreamCall[wire.ReadBlobRequest, wire.ReadBlobResponse], first: wire.ReadBlobResponse
) -> AsyncGenerator[bytes, None]:
    try:
        message: wire.ReadBlobResponse | None = first
        while message is not None:
            if message.chunk:
                yield message.chunk
            message = await _next(call)
    finally:
        call.cancel()


async def _next(
    call: grpc.aio.UnaryStreamCall[wire.ReadBlobRequest, wire.ReadBlobResponse],
) -> wire.ReadBlobResponse | None:
    """The next message, None at the end. Raises ShoalError."""
    try:
        with rpc.translated():
            async with asyncio.timeout(_IDLE_S):
                message = await call.read()
    except TimeoutError as error:
        raise Unavailable(f"a node sent nothing for {_IDLE_S:.0f} s") from error
    return message if isinstance(message, wire.ReadBlobResponse) else None
