"""Attachment: one client's hold on the streams of a container. Several may hold the same; closing one leaves the
container and the others alone."""

from __future__ import annotations

import asyncio

from agent.container.held import Ending, Held
from agent.runtime.runtime import Runtime
from agent.runtime.streams import Streams
from shoal.errors import Conflict
from shoal.model.container import ContainerState


class Attachment:
    """`ended` is a future of the container's next exit, taken before it could have happened. `stdin`: it gives
    input."""

    def __init__(
        self, held: Held, runtime: Runtime, streams: Streams, ended: asyncio.Future[Ending], *, stdin: bool
    ) -> None:
        container = held.record.container
        self._closes_stdin = stdin and container.origin.stdin and not container.spec.tty
        self._held = held
        self._runtime = runtime
        self._streams = streams
        self._ended = ended

    @property
    def container_id(self) -> str:
        return self._held.id

    async def read(self) -> tuple[int, bytes] | None:
        """(1 stdout | 2 stderr, bytes), or None once the container has closed both."""
        return await self._streams.read()

    async def write(self, data: bytes) -> None:
        await self._streams.write(data)

    async def close_stdin(self) -> None:
        """The process reads an end of file; its output goes on."""
        await self._streams.close_stdin()

    async def resize(self, rows: int, columns: int) -> None:
        await self._runtime.resize(self._held.id, rows, columns)

    async def signal(self, number: int) -> None:
        await self._runtime.signal(self._held.id, number)

    async def wait(self) -> Ending:
        """How it ended: the container's record says so already, and one with `auto_remove` is gone."""
        return await asyncio.shield(self._ended)

    async def close(self) -> None:
        """With it ends the input of a container whose client was to stay with it, also where that was killed."""
        if self._closes_stdin and self._held.alive:
            await self._streams.close_stdin()
        self._ended.cancel()
        await self._streams.close()


def check_attachable(held: Held) -> None:
    """Raises Conflict in docker's words."""
    state = held.state.status.state
    if state == ContainerState.PAUSED:
        raise Conflict("You cannot attach to a paused container, unpause it first")
    if state == ContainerState.RESTARTING:
        raise Conflict("You cannot attach to a restarting container, wait until it is running")
    if state != ContainerState.RUNNING:
        raise Conflict("You cannot attach to a stopped container, start it first")
