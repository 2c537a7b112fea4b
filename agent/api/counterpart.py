"""Counterpart: the client of a build, asked back while the build runs: for credentials, for its SSH agents, and for
layers of its caches."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from agent.registry.auth import Credentials
from shoal.errors import Unavailable
from shoal.v1 import build_pb2 as wire

# Bytes of one SSH connection that wait here; its protocol asks and answers, and comes nowhere near.
_MAX_WAITING = 1 << 20
# Parts of a layer that wait here before the client has to.
_AHEAD = 4


class Line:
    """One connection to an SSH agent of the client."""

    def __init__(self, number: int, put: Callable[[wire.BuildImageResponse], Awaitable[None]]) -> None:
        self._number = number
        self._put = put
        self._waiting: asyncio.Queue[bytes] = asyncio.Queue()
        self._bytes = 0

    def take(self, data: bytes) -> None:
        """From the client. One that sends more than anybody reads is cut."""
        self._bytes += len(data)
        self._waiting.put_nowait(data if self._bytes <= _MAX_WAITING else b"")

    async def read(self) -> bytes:
        """Nothing means the end."""
        data = await self._waiting.get()
        self._bytes -= len(data)
        return data

    async def write(self, data: bytes) -> None:
        await self._put(wire.BuildImageResponse(ssh=wire.SshData(number=self._number, data=data)))


class Counterpart:
    """`listen` runs for as long as the build; `put` sends something out."""

    def __init__(
        self,
        requests: AsyncIterator[wire.BuildImageRequest],
        put: Callable[[wire.BuildImageResponse], Awaitable[None]],
    ) -> None:
        self._requests = requests
        self._put = put
        self._answers: asyncio.Queue[wire.BuildCredentials] = asyncio.Queue()
        self._asking = asyncio.Lock()
        self._blobs: asyncio.Queue[wire.ContextFile] = asyncio.Queue(_AHEAD)
        self._fetching = asyncio.Lock()
        self._lines: dict[int, Line] = {}
        self._numbers = itertools.count(1)

    async def listen(self) -> None:
        async for request in self._requests:
            if request.WhichOneof("request") == "credentials":
                self._answers.put_nowait(request.credentials)
            elif request.WhichOneof("request") == "file":
                await self._blobs.put(request.file)
            elif request.WhichOneof("request") == "ssh" and request.ssh.number in self._lines:
                self._lines[request.ssh.number].take(request.ssh.data)

    async def login(self, image: str) -> Credentials | None:
        """For the registry of an image; one question at a time."""
        async with self._asking:
            await self._put(wire.BuildImageResponse(login=image))
            said = await self._answers.get()
            return Credentials(said.username, said.password) if said.username else None

    async def open(self, digest: str, offset: int) -> tuple[int, str, AsyncGenerator[bytes, None]]:
        """A layer of the client's caches, as BlobSource has it; always as a whole."""
        if offset:
            raise Unavailable("a client's cache gives layers as a whole")
        return -1, "", self._blob(digest)

    async def _blob(self, digest: str) -> AsyncGenerator[bytes, None]:
        """One at a time; of one that nobody wants any more, the rest is still heard."""
        async with self._fetching:
            await self._put(wire.BuildImageResponse(blob_wanted=bytes.fromhex(digest.partition(":")[2])))
            part = wire.ContextFile()
            try:
                while not part.last:
                    part = await self._blobs.get()
                    yield part.data
            finally:
                while not part.last:
                    part = await self._blobs.get()

    @asynccontextmanager
    async def ssh(self, name: str) -> AsyncIterator[Line]:
        """A connection to the SSH agent of this id."""
        number = next(self._numbers)
        line = self._lines[number] = Line(number, self._put)
        await self._put(wire.BuildImageResponse(ssh_open=wire.SshOpen(number=number, id=name)))
        try:
            yield line
        finally:
            del self._lines[number]
            await line.write(b"")
