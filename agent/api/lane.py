"""Lane: calls of this host's own commands without gRPC (`shoal/lane.py` says what goes over the wire).

There is no second API: the handlers are those of the gRPC server beside it, found in the same way behind the same
interceptors, and get a context that does of gRPC's what they use. Who may open the socket, may call. A client that is
gone cancels its call; one that does not read holds up its own call alone, and one that sends garbage hears so.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import select
import socket
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, cast

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from shoal import lane
from shoal.bound import DEFAULT_BOUNDS
from shoal.errors import DeadlineExceeded, Exhausted, InvalidArgument, ShoalError, Unsupported, trailing_of
from shoal.rpc import Metadata, Translation, opened_by_root
from shoal.v1.lane_pb2 import LaneOpen, LaneStatus

if TYPE_CHECKING:
    from shoal.rpc import Interceptor

log = logging.getLogger(__name__)

OPENING_S = 5.0
# Calls at once; each has a connection of its own.
MAX_CALLS = 4_096
# Bytes of one call that wait here before its client waits.
AHEAD_BYTES = 1 << 20
# How long a call that cannot be read goes on unnoticed when its client is gone.
LOOK_S = 1.0
_LONGEST_S = 1e6
_BACKLOG = 512

Handler = Any  # grpc.RpcMethodHandler, of which the stubs say less than it has


class Details(grpc.HandlerCallDetails):
    """What interceptors and relays are told of a call."""

    def __init__(self, method: str, metadata: Metadata) -> None:
        self.method = method
        self.invocation_metadata = tuple(metadata)


class Handlers:
    """What services and relays answer with. To who adds a service it looks like a server."""

    def __init__(self, interceptors: Sequence[Interceptor]) -> None:
        self._generic: list[grpc.GenericRpcHandler] = []
        find: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]] = self._plain
        for each in reversed((Translation(DEFAULT_BOUNDS), *interceptors)):
            find = partial(each.intercept_service, find)
        self.find = find

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        self._generic += handlers

    def add_registered_method_handlers(self, service: str, handlers: Any) -> None:
        """The same again, as gRPC wants it for its own table."""

    async def _plain(self, details: grpc.HandlerCallDetails) -> Handler:
        found = (each.service(details) for each in self._generic)
        return next((each for each in found if each is not None), None)


class Lanes:
    """The server, for so many `calls` at once; a client has `opening_s` to say what it calls. `stop` lets calls come to
    their end for a while, then cancels them."""

    def __init__(self, handlers: Handlers, *, calls: int = MAX_CALLS, opening_s: float = OPENING_S) -> None:
        self._handlers = handlers
        self._calls = calls
        self._opening_s = opening_s
        self._serving: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._path = Path()

    async def listen(self, path: Path) -> None:
        self._path = path
        path.unlink(missing_ok=True)
        listening = socket.socket(socket.AF_UNIX)
        with opened_by_root(path):
            listening.bind(str(path))
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(self._connection, sock=listening, backlog=_BACKLOG)

    async def stop(self, grace_s: float | None) -> None:
        assert self._server is not None, "it was never started"
        self._server.close()
        self._path.unlink(missing_ok=True)
        if self._serving:
            await asyncio.wait(self._serving, timeout=grace_s or 0.0)
        for each in self._serving:
            each.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def _connection(self) -> _Connection:
        return _Connection(self._start)

    def _start(self, connection: _Connection) -> asyncio.Task[None]:
        crowded = len(self._serving) >= self._calls
        task = asyncio.get_running_loop().create_task(self._serve(connection, crowded=crowded), name="lane")
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        return task

    async def _serve(self, connection: _Connection, *, crowded: bool) -> None:
        try:
            status = await self._status(connection, crowded=crowded)
            await connection.send(lane.STATUS, status.SerializeToString())
        finally:
            connection.close()

    async def _status(self, connection: _Connection, *, crowded: bool) -> LaneStatus:
        """Serve the call, and say how it went."""
        try:
            if crowded:
                raise Exhausted(f"the agent serves {self._calls} local calls already", hint="try again in a moment")
            opening = await self._opening(connection)
            details = Details(opening.method, tuple(opening.metadata.items()))
            handler = await self._handlers.find(details)
            if handler is None:
                raise Unsupported(f"this agent has no {opening.method}", hint="its version may be another")
            limit_s = min(opening.timeout_s, _LONGEST_S) if opening.timeout_s > 0 else None
            context = Context(details, connection, handler.response_serializer, limit_s)
            return await _run(handler, context, limit_s)
        except ShoalError as error:
            return _status_of(error)
        except Exception as error:  # the boundary: nothing may reach the client untold
            log.exception("a lane failed")
            return _status_of(ShoalError(f"the call failed: {type(error).__name__}: {error}"))

    async def _opening(self, connection: _Connection) -> LaneOpen:
        try:
            async with asyncio.timeout(self._opening_s):
                kind, payload = await connection.next()
        except TimeoutError as error:
            raise DeadlineExceeded(f"nothing was said on a lane for {self._opening_s:g} s") from error
        if kind != lane.OPEN:
            raise InvalidArgument("a lane begins with the method that is called")
        return cast("LaneOpen", _parsed(LaneOpen.FromString, payload, "the beginning of a lane"))


async def _run(handler: Handler, context: Context, limit_s: float | None) -> LaneStatus:
    try:
        async with asyncio.timeout(limit_s) as limit:
            request = _requests(handler, context) if handler.request_streaming else await _only(handler, context)
            if handler.response_streaming:
                behaviour = handler.stream_stream or handler.unary_stream
                async with contextlib.aclosing(behaviour(request, context)) as responses:
                    async for response in responses:
                        await context.write(response)
            else:
                answer = await (handler.stream_unary or handler.unary_unary)(request, context)
                await context.write(answer, last=True)
    except grpc.aio.AbortError:
        return context.status
    except TimeoutError:
        if not limit.expired():
            raise
        raise DeadlineExceeded("Deadline Exceeded") from None
    return context.status


async def _requests(handler: Handler, context: Context) -> AsyncIterator[Any]:
    """What the client sends, until it says that this was all."""
    while (request := await _request(handler, context)) is not None:
        yield request


async def _only(handler: Handler, context: Context) -> Any:
    request = await _request(handler, context)
    if request is None:
        raise InvalidArgument(f"{context.details.method} takes one message")
    return request


async def _request(handler: Handler, context: Context) -> Any:
    """The next that the client sends; None once it has said that this was all."""
    found = await context.connection.next()
    if found.kind == lane.END:
        return None
    if found.kind != lane.MESSAGE:
        raise InvalidArgument("a lane has one beginning")
    return _parsed(handler.request_deserializer or bytes, found.payload, f"a message of {context.details.method}")


def _parsed(decode: Callable[[bytes], Any], payload: bytes, what: str) -> Any:
    try:
        return decode(payload)
    except DecodeError as error:
        raise InvalidArgument(f"{what} cannot be read: {error}") from error


def _status_of(error: ShoalError) -> LaneStatus:
    return _status(error.code.value, error.message, trailing_of(error))


def _status(code: int, message: str, trailing: Metadata) -> LaneStatus:
    held = {key: value if isinstance(value, bytes) else value.encode() for key, value in trailing}
    return LaneStatus(code=code, message=message, trailing=held)


class Context:
    """Of `grpc.aio.ServicerContext`, what handlers use. `status` is how the call ends."""

    def __init__(
        self, details: Details, connection: _Connection, encode: Callable[[Any], bytes] | None, limit_s: float | None
    ) -> None:
        self.details = details
        self.connection = connection
        self.status = LaneStatus()
        self._encode = encode or bytes
        self._loop = asyncio.get_running_loop()
        self._end = None if limit_s is None else self._loop.time() + limit_s

    def peer(self) -> str:
        return "unix:"

    def auth_context(self) -> dict[str, Any]:
        return {}

    def invocation_metadata(self) -> Metadata:
        return self.details.invocation_metadata

    def time_remaining(self) -> float | None:
        return None if self._end is None else max(self._end - self._loop.time(), 0.0)

    def set_trailing_metadata(self, metadata: Metadata) -> None:
        self.status = _status(0, "", metadata)

    async def write(self, message: Any, *, last: bool = False) -> None:
        await self.connection.send(lane.MESSAGE, self._encode(message), more=last)  # the status follows at once

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing: Metadata = ()) -> NoReturn:
        self.status = _status(code.value[0], details, trailing)
        raise grpc.aio.AbortError


class Frame(NamedTuple):
    kind: int
    payload: bytes


class _Connection(asyncio.Protocol):
    """One client. What it sends waits here until it is asked for, up to a bound; its end cancels who serves it."""

    def __init__(self, start: Callable[[_Connection], asyncio.Task[None]]) -> None:
        self._start = start
        self._frames = lane.Frames()
        self._waiting: deque[Frame] = deque()
        self._bytes = 0
        self._held: list[bytes] = []
        self._refusal: InvalidArgument | None = None
        self._came = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one, but does not say so
        self._serving = self._start(self)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002
        self._serving.cancel()

    def data_received(self, data: bytes) -> None:
        try:
            found = self._frames.feed(data)
        except InvalidArgument as refusal:
            self._refusal, found = refusal, []
        for kind, payload in found:
            self._waiting.append(Frame(kind, payload))
            self._bytes += len(payload)
        if not self._paused and (self._bytes > AHEAD_BYTES or self._refusal):
            self._pause()
        self._came.set()

    async def next(self) -> Frame:
        """The next frame. Raises InvalidArgument for what is none. Its client's end is told by cancellation."""
        while not self._waiting:
            if self._refusal is not None:
                raise self._refusal
            self._came.clear()
            await self._came.wait()
        found = self._waiting.popleft()
        self._bytes -= len(found.payload)
        if self._paused and self._refusal is None and self._bytes <= AHEAD_BYTES // 2:
            self._paused = False
            self._transport.resume_reading()
        return found

    async def send(self, kind: int, payload: bytes, *, more: bool = False) -> None:
        """Returns when there is room for more. `more`: it goes with the next one, which is at hand."""
        if more:
            self._held.append(lane.frame(kind, payload))
            return
        self._transport.write(b"".join((*self._held, lane.frame(kind, payload))))
        self._held.clear()
        await self._writable.wait()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def close(self) -> None:
        """Once all that was sent is out."""
        self._transport.close()

    def _pause(self) -> None:
        self._paused = True
        self._transport.pause_reading()
        asyncio.get_running_loop().call_later(LOOK_S, self._look)

    def _look(self) -> None:
        """While nothing is read, the end of the client is no event. poll(2) tells of a hang-up without being asked."""
        if not self._paused or self._transport.is_closing():
            return
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), 0)
        if poll.poll(0):
            self._transport.abort()
        else:
            asyncio.get_running_loop().call_later(LOOK_S, self._look)
