"""Visits: somebody's attachments to containers, and commands in them. A visit that ends leaves the container alone.

`attach` and `execution` open the streams; what flows in them is carried by `agent.api.stream`.
"""

from __future__ import annotations

import asyncio
import contextlib

from agent.container.attach import Attachment, check_attachable
from agent.container.exec import ExecRequest
from agent.container.execution import Execution
from agent.container.held import Held
from agent.container.launch import NO_SIZE, Size
from agent.container.lifecycle import Lifecycle, Room
from agent.runtime.streams import Streams
from shoal.errors import NotFound


class Visits:
    def __init__(self, room: Room, lifecycle: Lifecycle, execution: Execution) -> None:
        self._room = room
        self._lifecycle = lifecycle
        self._execution = execution

    async def attach(self, ref: str, *, stdin: bool = False, start: bool = False, size: Size = NO_SIZE) -> Attachment:
        """With `start`, it is started once the streams are in place, so that no byte is lost.

        Raises Conflict if it does not run and is not to be started, and what `start` raises.
        """
        held = self._room.register.find(ref)
        opening = asyncio.ensure_future(self._attach(held, stdin=stdin, start=start, size=size))
        try:
            return await self._room.lasting.do(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(self._abandon)
            raise

    async def exec(self, ref: str, request: ExecRequest) -> Streams:
        """Raises Conflict if it does not run, CommandNotFound and CommandNotExecutable."""
        held = self._room.register.find(ref)
        command = " ".join(request.argv)
        self._lifecycle.publish(held, f"exec_create: {command}", execID=request.id)
        streams = await self._execution.begin(held, request)
        held.commands.add(request.id, streams.pid)
        self._lifecycle.publish(held, f"exec_start: {command}", execID=request.id)
        return streams

    def exec_ended(self, ref: str, request: ExecRequest, code: int) -> None:
        """Tell that a command which somebody stayed with has ended; of its container nothing may be left."""
        with contextlib.suppress(NotFound):
            held = self._room.register.find(ref)
            held.commands.discard(request.id)
            command = " ".join(request.argv)
            self._lifecycle.publish(held, "exec_die", exitCode=str(code), command=command, execID=request.id)

    async def _attach(self, held: Held, *, stdin: bool, start: bool, size: Size) -> Attachment:
        async with held.lock:
            held.check_there()
            if not start:
                check_attachable(held)
            ended = held.next_exit()
            stdin = stdin and held.record.container.spec.open_stdin
            streams = await self._room.runtime.attach(held.id, stdin=stdin)
            attachment = Attachment(held, self._room.runtime, streams, ended, stdin=stdin)
            self._lifecycle.publish(held, "attach")
            if start:
                try:
                    await self._lifecycle.start(held, size)
                except BaseException:
                    await attachment.close()
                    raise
            return attachment

    def _abandon(self, opening: asyncio.Task[Attachment]) -> None:
        """Its caller went away while it was being opened."""
        if not opening.cancelled() and opening.exception() is None:
            self._room.group.spawn("close attachment", opening.result().close())
