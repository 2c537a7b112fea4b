"""Stream: one call of a session, from a manager's welcome to its end. `agent/session.py` knows what is said over it.

What goes up waits in a queue of one and goes in order. A stream that is left for another one stands until it is
closed, so that a node is never without one where it need not be.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import grpc.aio

from shoal.clock import Clock
from shoal.errors import ShoalError, Unavailable
from shoal.rpc import dial, error_of, last_word
from shoal.tasks import first_of
from shoal.tls import Identity
from shoal.v1 import dispatcher_pb2 as wire
from shoal.v1 import dispatcher_pb2_grpc

# More than connecting takes, and longer than it takes a manager to let thousands in.
WELCOME_S = 30.0
# Of assignments, before the worker has taken those that came first.
AHEAD_BYTES = 1 << 20


class Stream:
    """With `manager`, which knows this node by `identity` and by what it said in `hello`."""

    def __init__(
        self, manager: str, identity: Identity, hello: wire.Hello, *, silence_s: float, connect_s: float
    ) -> None:
        self.manager = manager
        self.identity = identity
        self.hello = hello
        self.welcome = wire.Welcome()
        self.channel = dial(
            manager, identity=identity, silence_s=silence_s, connect_s=connect_s, ahead_bytes=AHEAD_BYTES
        )
        # Written to, not given an iterator: gRPC 1.85 leaves one of a call that the other end has ended to wait for
        # ever (grpc/grpc#37355).
        self._call: Any = dispatcher_pb2_grpc.DispatcherServiceStub(self.channel).Session()
        self._outgoing: asyncio.Queue[wire.SessionRequest | None] = asyncio.Queue(maxsize=1)

    async def open(self, clock: Clock, *, unless: Coroutine[Any, Any, object]) -> None:
        """Returns once the manager has let this node in. Raises ShoalError where it does not, not in time, or not
        before `unless` ends; nothing is left of the stream then."""
        try:
            await self._greet(clock, unless)
        except grpc.aio.AioRpcError as error:
            await self.close()
            raise error_of(error) from error
        except BaseException:
            await self.close()
            raise

    async def say(self, **fields: Any) -> None:
        """Have this sent, if the call still can; waits for what was said before it."""
        await self._outgoing.put(wire.SessionRequest(**fields))

    async def fall_silent(self) -> None:
        """Nothing more is said: the manager then ends the stream."""
        await self._outgoing.put(None)

    async def write(self) -> None:
        """Send what is said, for as long as this runs: the call has one writer. Why it cannot any more, the reader
        hears; until then what is said goes nowhere, so that the reader, who says something too, is not held up."""
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            while (request := await self._outgoing.get()) is not None:
                await self._call.write(request)
            await self._call.done_writing()
        while True:
            await self._outgoing.get()

    async def responses(self) -> AsyncIterator[wire.SessionResponse]:
        """What comes down, until the manager ends the stream. Raises ShoalError where it says why, or where the
        connection broke."""
        try:
            while (response := await self._call.read()) is not grpc.aio.EOF:
                yield response
        except grpc.aio.AioRpcError as error:
            raise error_of(error) from error
        # The end may be an error, which only the call's own status tells.
        if (code := await self._call.code()) is not grpc.StatusCode.OK:
            raise Unavailable(f"the session ended: {await self._call.details() or code.name}")

    async def close(self) -> None:
        self._call.cancel()
        await self.channel.close()

    async def _greet(self, clock: Clock, unless: Coroutine[Any, Any, object]) -> None:
        response: Any = None

        async def greet() -> None:
            nonlocal response
            async with last_word(self._call):
                await self._call.write(wire.SessionRequest(hello=self.hello))
            response = await self._call.read()

        await first_of(greet(), unless, clock.sleep(WELCOME_S))
        if response is None:
            raise Unavailable(f"the manager at {self.manager} does not answer")
        if response is grpc.aio.EOF:
            raise Unavailable(f"the manager at {self.manager} ended the session")
        if response.WhichOneof("response") != "welcome":
            raise ShoalError(f"the manager at {self.manager} began a session without a welcome")
        self.welcome = wire.Welcome.FromString(response.welcome.SerializeToString())
