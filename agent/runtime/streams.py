"""Streams: what flows in and out of one process, container or exec, over a connection of its own.

An attachment goes on when the keeper dies: the next one has the container, and its output waits in the kernel. An
exec's does not, since nobody is its parent any more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import msgspec

from agent.runtime import wire
from agent.runtime.line import Gone, Line, error_of
from agent.runtime.run import Exit
from shoal.errors import ShoalError, Unavailable

_ATTACH_TRIES = 3
_CHUNK = 256 * 1024


class Streams:
    """One process's output and input. Closing it ends nothing: the process goes on, its output is thrown away."""

    def __init__(self, line: Line, request: dict[str, Any]) -> None:
        self._line = line
        self._request = request
        self._frames: deque[tuple[int, bytes]] = deque()
        self._exit: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._reading = asyncio.Lock()
        self._input_ended = False
        self._closed = False
        self._spoke = False
        self.pid = 0

    @classmethod
    async def open(cls, line: Line, request: dict[str, Any]) -> Streams:
        """Of the attachment or the exec that `request` asks for. Raises what the keeper raises."""
        streams = cls(line, request)
        tries = 1 if request["op"] == "exec" else _ATTACH_TRIES  # an attachment does no harm twice
        for left in reversed(range(tries)):
            try:
                await streams._dial()
                break
            except Gone as error:
                if not left:
                    raise Unavailable(f"the keeper died during {request['op']}", hint="try again") from error
        return streams

    async def read(self) -> tuple[int, bytes] | None:
        """The next output: (1 for stdout or 2 for stderr, bytes); None when the process has ended."""
        async with self._reading:
            while not self._frames and not self._exit.done():
                await self._receive()
            return self._frames.popleft() if self._frames else None

    async def write(self, data: bytes) -> None:
        """Give input; returns when it is on its way. After the process's end nothing happens."""
        for at in range(0, len(data), _CHUNK):
            await self._send(wire.frame(wire.STDIN, data[at : at + _CHUNK]))

    async def close_stdin(self) -> None:
        """Tell the process that no more input comes; its output goes on."""
        self._input_ended = True
        await self._send(wire.frame(wire.STDIN_END))

    async def resize(self, rows: int, columns: int) -> None:
        await self._send(wire.message({"op": "resize", "rows": rows, "columns": columns}))

    async def signal(self, number: int) -> None:
        """Signal this process; after its end nothing happens."""
        await self._send(wire.message({"op": "signal", "number": number}))

    async def wait(self) -> Exit:
        """How the process ended. Output that nobody reads meanwhile is thrown away."""
        while not self._exit.done():
            if await self.read() is None:
                break
        return await asyncio.shield(self._exit)

    async def close(self) -> None:
        """Detach. Idempotent. After the process's end the connection is somebody else's."""
        if self._closed:
            return
        self._closed = True
        if self._exit.done() and not self._exit.exception() and not self._spoke:
            self._line.keep(self._channel)
            return
        self._channel.close()
        if not self._exit.done():
            self._exit.set_exception(Unavailable("the attachment is closed"))
            self._exit.exception()  # somebody may wait for it, nobody has to

    async def _dial(self) -> None:
        self._channel = await self._line.dial()
        await self._channel.send(wire.frame(wire.JSON, msgspec.json.encode(self._request)))
        frames = await self._channel.receive()
        if not frames:
            raise Gone
        answer = msgspec.json.decode(frames[0][1])
        if "error" in answer:
            self._channel.close()
            raise error_of(answer["error"])
        self.pid = answer["result"]["pid"]
        self._take(frames[1:])

    async def _receive(self) -> None:
        if frames := await self._channel.receive():
            self._take(frames)
        elif self._closed:
            return
        elif self._request["op"] == "exec":
            self._exit.set_exception(Unavailable("the keeper died; what the command did since is not known"))
        else:
            await self._attach_again()

    async def _attach_again(self) -> None:
        """The keeper died: the next one has the container, and its output waits in the kernel."""
        self._channel.close()
        try:
            known = (await self._line.ask_again("list")).get(self._request["id"])
            if known is not None and known["exit"]:
                self._exit.set_result(msgspec.convert(known["exit"], Exit))
                return
            await self._dial()
            if self._input_ended:
                await self.close_stdin()
        except (ShoalError, Gone, TimeoutError) as error:
            if not self._exit.done():
                self._exit.set_exception(error if isinstance(error, ShoalError) else Unavailable("the keeper is gone"))

    def _take(self, frames: list[tuple[int, bytes]]) -> None:
        for kind, payload in frames:
            if kind == wire.JSON:
                if not self._exit.done():
                    self._exit.set_result(msgspec.convert(msgspec.json.decode(payload)["exit"], Exit))
            else:
                self._frames.append((kind, payload))

    async def _send(self, data: bytes) -> None:
        if not self._exit.done():
            self._spoke = True  # and perhaps too late for the process: the keeper would not know whom it was meant for
            await self._channel.send(data)
