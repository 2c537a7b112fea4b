"""The agent's line to the keeper: dials it, starts one where there is none, and asks what `runtime` has to ask.

When the keeper dies, the next one is dialled at once, so that logs go on. A question that does no harm twice is asked
again there; any other fails with Unavailable. `streams` has connections of its own from `dial`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec

from agent.runtime import wire
from agent.runtime.channel import Channel
from agent.runtime.launcher import SPAWN_S, last_words, launch
from shoal.errors import TREE, ShoalError, Unavailable

T = TypeVar("T")
SOCKET = "keeper.sock"
KEPT = 4  # connections that wait for their next process


class Gone(Exception):
    """The keeper closed the connection."""


class Line:
    """Made by `open`. Safe to use from many tasks."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._control: _Control | None = None
        self._connected = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._dialing = asyncio.Lock()
        self._kept: list[Channel] = []

    @classmethod
    async def open(cls, run_dir: Path) -> Line:
        """Raises Unavailable when no keeper comes up."""
        line = cls(run_dir)
        control = await line._connect()
        line._task = asyncio.create_task(line._stay_connected(control), name="keeper connection")
        return line

    async def ask(self, op: str, **fields: Any) -> Any:
        """The keeper's answer. Raises what it raises, and Unavailable when it dies meanwhile."""
        try:
            return await self._request(op, fields)
        except Gone as error:
            raise Unavailable(f"the keeper died during {op}", hint="it is being restarted; try again") from error

    async def ask_again(self, op: str, **fields: Any) -> Any:
        """As `ask`, but survives the keeper's death."""
        while True:
            try:
                return await self._request(op, fields)
            except Gone:
                await self._reconnected()

    async def dial(self) -> Channel:
        """A connection of the caller's own: to `keep` when its process has ended, or to close."""
        while self._kept:
            kept = self._kept.pop()
            if kept.alive:
                return kept
            kept.close()
        connect = asyncio.get_running_loop().create_unix_connection
        _, channel = await self._reach(partial(connect, Channel))
        return channel

    def keep(self, channel: Channel) -> None:
        """Take back a connection on which all has been said: the next one who dials need not."""
        if len(self._kept) < KEPT and self._connected.is_set():
            self._kept.append(channel)
        else:
            channel.close()

    async def run(self) -> None:
        """As long as the line is open. Raises what ended it for good."""
        assert self._task is not None
        await asyncio.shield(self._task)

    async def close(self) -> None:
        """Hang up; the keeper and its containers go on."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._hang_up()

    async def _request(self, op: str, fields: dict[str, Any]) -> Any:
        if self._task is None or self._task.done():
            raise Unavailable("the runtime is closed")
        await self._reconnected()
        if self._control is None:
            raise Gone
        number = next(self._numbers)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            self._control.send({"seq": number, "op": op, **fields})
            return await answer
        finally:
            self._waiting.pop(number, None)

    async def _reconnected(self) -> None:
        """Raises TimeoutError when no keeper comes up."""
        if not self._connected.is_set():
            async with asyncio.timeout(SPAWN_S):
                await self._connected.wait()

    async def _connect(self) -> _Control:
        loop = asyncio.get_running_loop()
        made = partial(_Control, self._answered, self._hang_up)
        _, control = await self._reach(lambda name: loop.create_unix_connection(made, name))
        control.send({"op": "control"})
        self._control = control
        self._connected.set()
        return control

    async def _reach(self, connect: Callable[[str], Awaitable[T]]) -> T:
        """Connect to the keeper, starting it if nobody listens."""
        async with self._dialing:
            for _ in range(3):
                with contextlib.suppress(OSError), wire.address(self._run_dir / SOCKET) as name:
                    return await connect(name)
                await asyncio.to_thread(launch, self._run_dir, self._run_dir / SOCKET)
            raise Unavailable(f"no keeper answers on {self._run_dir / SOCKET}", hint=last_words(self._run_dir))

    async def _stay_connected(self, control: _Control) -> None:
        """When the keeper dies, dial the next one, so that logs go on at once."""
        while True:
            await control.lost.wait()
            self._hang_up()
            while True:
                try:
                    control = await self._connect()
                    break
                except Unavailable:
                    await asyncio.sleep(1)  # nothing to wait for: the host cannot start a process now

    def _answered(self, answer: dict[str, Any]) -> None:
        waiting = self._waiting.get(answer["seq"])
        if waiting is None or waiting.done():
            return
        if "error" in answer:
            waiting.set_exception(error_of(answer["error"]))
        else:
            waiting.set_result(answer["result"])

    def _hang_up(self) -> None:
        """Whoever waits hears of it, whoever asks now waits for the next connection. One that is lost calls this at
        once, before anybody could ask on it."""
        self._connected.clear()
        for kept in self._kept:
            kept.close()
        self._kept.clear()
        if self._control is not None:
            self._control.close()
            self._control = None
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(Gone())


class _Control(asyncio.Protocol):
    """The connection that carries numbered questions; `lost` is set when it is gone."""

    def __init__(self, answered: Callable[[dict[str, Any]], None], gone: Callable[[], None]) -> None:
        self._answered = answered
        self._gone = gone
        self._decoder = wire.Decoder()
        self._transport: asyncio.Transport | None = None
        self.lost = asyncio.Event()

    def send(self, question: dict[str, Any]) -> None:
        if self._transport is not None:
            self._transport.write(wire.frame(wire.JSON, msgspec.json.encode(question)))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
            self.lost.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        for _, payload in self._decoder.feed(data):
            self._answered(msgspec.json.decode(payload))

    def connection_lost(self, _error: Exception | None) -> None:
        self._transport = None
        if not self.lost.is_set():
            self.lost.set()
            self._gone()


def error_of(fields: Mapping[str, str]) -> ShoalError:
    """An error as the keeper sends it."""
    return TREE.get(fields["kind"], ShoalError)(fields["message"], hint=fields["hint"])
