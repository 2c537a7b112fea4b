"""The conversation of a build with the agent: the context up, as far as it lacks it, and what happens down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from typing import Any

from cli.build.cache import Caches
from cli.build.context import Context
from cli.build.progress import Progress
from cli.build.ssh import Lender
from cli.calls import Calls
from shoal.errors import NotFound, ShoalError, Unavailable
from shoal.v1 import build_pb2

_ENTRIES = 5_000
_CHUNK = 1 << 20
# What a file costs in a message, besides its content.
_OVERHEAD = 64


class Conversation:
    """One build. `excerpt` is what the agent shows of a Dockerfile that failed, `debug_image` has what was written."""

    def __init__(
        self, calls: Calls, context: Context, shown: Progress, agents: Mapping[str, str], caches: Caches
    ) -> None:
        self._calls = calls
        self._context = context
        self._shown = shown
        self._agents = agents
        self._caches = caches
        self.excerpt = ""
        self.done = False
        self.image_id = ""
        self.debug_image = ""

    async def follow(self, opening: build_pb2.BuildOpen) -> AsyncGenerator[bytes, None]:
        """Until the image is there; what comes is the tar of its files, where that was asked for.

        Raises what the agent says. Who stops reading ends the build.
        """
        call: Any = self._calls.builds().BuildImage()

        async def say(number: int, data: bytes) -> None:
            await call.write(build_pb2.BuildImageRequest(ssh=build_pb2.SshData(number=number, data=data)))

        lender = Lender(self._agents, say)
        try:
            await call.write(build_pb2.BuildImageRequest(open=opening))
            for entries in _entries(self._context):
                await call.write(build_pb2.BuildImageRequest(entries=entries))
            while (response := await call.read()) is not None:
                if response.WhichOneof("response") == "tar":
                    yield response.tar
                else:
                    await self._take(call, response, lender)
        finally:
            await lender.close()
            call.cancel()
        if not self.done:
            raise Unavailable("the build ended before it was done", hint="see the agent's log")

    async def _take(self, call: Any, response: build_pb2.BuildImageResponse, lender: Lender) -> None:
        match response.WhichOneof("response"):
            case "wanted":
                await self._send(call, response.wanted.digests)
            case "login":
                from cli import credentials  # for who fetches an image

                known = credentials.find(response.login)
                said = build_pb2.BuildCredentials(username=known.username, password=known.password)
                await call.write(build_pb2.BuildImageRequest(credentials=said))
            case "ssh_open":
                await lender.open(response.ssh_open.number, response.ssh_open.id)
            case "ssh":
                await lender.take(response.ssh.number, response.ssh.data)
            case "blob_wanted":
                await self._give(call, response.blob_wanted)
            case "cache_list":
                self._caches.take_list(response.cache_list)
            case "cache_blob":
                part = response.cache_blob
                await asyncio.to_thread(self._caches.take, part.digest, part.data, last=part.last)
            case "step":
                self._shown.step(response.step)
            case "output":
                self._shown.output(response.output)
            case "step_end":
                self._shown.step_end(response.step_end)
            case "debug_image":
                self.debug_image = response.debug_image
            case "excerpt":
                self.excerpt = response.excerpt
            case "done":
                self.done, self.image_id = True, response.done.image_id

    async def _give(self, call: Any, digest: bytes) -> None:
        """A layer of a cache; one that is gone is empty, and its step is done again."""
        try:
            file = await asyncio.to_thread(self._caches.open, digest)
        except NotFound:
            await call.write(build_pb2.BuildImageRequest(file=build_pb2.ContextFile(digest=digest, last=True)))
            return
        with file:
            while True:
                piece = await asyncio.to_thread(file.read, _CHUNK)
                await call.write(
                    build_pb2.BuildImageRequest(file=build_pb2.ContextFile(digest=digest, data=piece, last=not piece))
                )
                if not piece:
                    return

    async def _send(self, call: Any, digests: Any) -> None:
        """The files that the agent lacks, in its order."""
        waiting: list[build_pb2.ContextFile] = []
        size_bytes = 0
        for part in _parts(self._context, digests):
            waiting.append(part)
            size_bytes += len(part.data) + _OVERHEAD
            if size_bytes >= _CHUNK:
                if not await call.write(_together(waiting)):
                    return  # why it ended is read next
                waiting, size_bytes = [], 0
        if waiting:
            await call.write(_together(waiting))


def _together(files: list[build_pb2.ContextFile]) -> build_pb2.BuildImageRequest:
    return build_pb2.BuildImageRequest(files=build_pb2.ContextFiles(files=files))


def _parts(context: Context, digests: Iterable[bytes]) -> Iterator[build_pb2.ContextFile]:
    """Of the files with these contents, piece by piece. Raises ShoalError for one that cannot be read."""
    places = {digest: path for path, digest in zip(context.paths, context.contents, strict=True)}
    for digest in digests:
        path = context.root / places[digest].decode(errors="surrogateescape")
        try:
            with path.open("rb", buffering=0) as file:
                piece = file.read(_CHUNK)
                while True:
                    following = file.read(_CHUNK) if len(piece) == _CHUNK else b""
                    yield build_pb2.ContextFile(digest=digest, data=piece, last=not following)
                    if not following:
                        break
                    piece = following
        except OSError as error:
            raise ShoalError(f"cannot read the build context: {path}: {error.strerror}") from error


def _entries(context: Context) -> list[build_pb2.ContextEntries]:
    """In parts that fit a message."""
    count = len(context.paths)
    parts = [
        build_pb2.ContextEntries(
            paths=context.paths[at : at + _ENTRIES],
            modes=context.modes[at : at + _ENTRIES],
            sizes=context.sizes[at : at + _ENTRIES],
            modified_at_ns=context.modified_at_ns[at : at + _ENTRIES],
            contents=context.contents[at : at + _ENTRIES],
        )
        for at in range(0, count, _ENTRIES)
    ] or [build_pb2.ContextEntries()]
    parts[-1].last = True
    return parts
