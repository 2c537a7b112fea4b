"""gRPC plumbing: servers that speak our errors, and channels that find their peer. `forward` relays whole services.

Errors travel as the status code with the message as details; `shoal-error` and `shoal-hint-bin` in the
trailing metadata carry the rest. Keepalive: gRPC 1.85 ignores `grpc.keepalive_timeout_ms`, the option that works is
`grpc.http2.ping_timeout_ms`. And its streams lose the other end's last word, unless mended (`_write`).
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import inspect
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import grpc.aio
from grpc._cython import cygrpc
from grpc.aio._call import _StreamRequestMixin

from shoal import errors
from shoal.bound import DEFAULT_BOUNDS, MAX_MESSAGE_BYTES, Bounds, ahead, honest, measured
from shoal.errors import Code, ShoalError

log = logging.getLogger(__name__)

_SOCKET_MODE = 0o660
HANG_UP_S = 1.0
Metadata = Sequence[tuple[str, str | bytes]]
# In the trailing metadata of an answer: for how many seconds the store that it comes from was not heard.
STALE = "shoal-stale"
if TYPE_CHECKING:
    from pathlib import Path

    from shoal.tls import Identity

    Context = grpc.aio.ServicerContext[Any, Any]
    Interceptor = grpc.aio.ServerInterceptor

_CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Channels of one process to the same address must not share a connection: a renewed identity needs a new one.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
]
_SERVER_OPTIONS = [
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    # Below what any of our clients does (`dial`), or they are sent away (GOAWAY, too many pings).
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
    # A thousand agents that reconnect at once are normal; gRPC's default turns them away (CANCELLED).
    ("grpc.server.max_pending_requests", 100_000),
    ("grpc.server.max_pending_requests_hard_limit", 200_000),
    # And may have to wait: gRPC drops who waits for 30 s.
    ("grpc.server_max_unrequested_time_in_server", 120),
]


# What an agent does for its host, and a manager relays to the node that a call names ("shoal-node").
ENGINE_SERVICES = tuple(
    f"shoal.v1.{name}Service" for name in ("Container", "Image", "Build", "Network", "Volume", "System")
)


def dial(
    target: str,
    *,
    identity: Identity | None = None,
    server_name: str = "",
    root_ca_pem: str = "",
    silence_s: float = 15.0,
    connect_s: float = 0.0,
    ahead_bytes: int = 0,
) -> grpc.aio.Channel:
    """A channel to `unix:/path` (no TLS) or `HOST:PORT` (TLS; the server must prove that it is `server_name`, or
    else a manager). Calls fail once nothing was heard of the other end for `silence_s`, and connecting when that
    takes `connect_s`, or a third of the silence if that is more. `ahead_bytes` of a stream may come before it is read
    (`bound.ahead`).

    Nothing is connected before the first call.
    """
    third_ms = int(silence_s * 1000 / 3)
    options: list[tuple[str, int | str]] = [
        *_CHANNEL_OPTIONS,
        *ahead(ahead_bytes),
        ("grpc.keepalive_time_ms", 2 * third_ms),
        ("grpc.http2.ping_timeout_ms", third_ms),
        # What is left of this option: how long sent bytes may stay unacknowledged (TCP_USER_TIMEOUT, tcp(7)).
        ("grpc.keepalive_timeout_ms", third_ms),
        # Despite its name: how long connecting may take, TLS and all. 100 ms would shut out every host 40 ms away.
        ("grpc.min_reconnect_backoff_ms", max(third_ms, int(connect_s * 1000))),
    ]
    if target.startswith("unix:"):
        return grpc.aio.insecure_channel(target, options=options)
    from shoal.tls import MANAGER_NAME, channel_credentials  # cryptography: 60 ms that a local client does not owe

    options.append(("grpc.ssl_target_name_override", server_name or MANAGER_NAME))
    return grpc.aio.secure_channel(target, channel_credentials(identity, root_ca_pem), options=options)


def new_server(
    *,
    interceptors: Sequence[Interceptor] = (),
    bounds: Bounds = DEFAULT_BOUNDS,
    ping_every_s: float = 10.0,
    ping_timeout_s: float = 5.0,
) -> grpc.aio.Server:
    """A server whose handlers may raise ShoalError; `interceptors` run inside that translation, in order. A connection
    whose other end is dead ends within the sum of `ping_every_s` and `ping_timeout_s`; gRPC's own threads see to that,
    so that thousands cost next to nothing."""
    options = [
        *_SERVER_OPTIONS,
        *bounds.options(),
        ("grpc.keepalive_time_ms", int(ping_every_s * 1000)),
        ("grpc.http2.ping_timeout_ms", int(ping_timeout_s * 1000)),
    ]
    return grpc.aio.server(
        interceptors=[Translation(bounds), *interceptors],
        options=options,
        maximum_concurrent_rpcs=bounds.calls,
    )


def listen_locally(server: grpc.aio.Server, path: Path) -> None:
    """Let `server` listen on a unix socket that only root, and whom root gives its group, can open."""
    with opened_by_root(path):
        server.add_insecure_port(f"unix:{path}")


@contextlib.contextmanager
def opened_by_root(path: Path) -> Iterator[None]:
    """The unix socket that is made inside can be opened by root alone, and whom root gives its group. Nothing in the
    block may wait."""
    # A socket is made with the process's umask: nobody else may come in between bind and chmod.
    before = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(before)
    path.chmod(_SOCKET_MODE)


def error_of(error: grpc.aio.AioRpcError) -> ShoalError:
    """The error that the server raised, or what the failure of the call itself comes to."""
    details = error.details() or error.code().name
    if details == grpc.StatusCode.CANCELLED.name:  # gRPC's word for a handler that was ended from outside
        details = "the other end has cut the call off"
    return errors.of_status(error.code().value[0], details, dict(error.trailing_metadata() or ()))


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Calls inside raise ShoalError instead of AioRpcError; Unavailable where somebody closed their channel: gRPC tells
    of that as if the task that waits had been cancelled, and whoever believed it would be gone without a word."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise error_of(error) from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise errors.Unavailable("the connection was closed meanwhile") from error


async def _write(call: Any, request: Any) -> None:
    """In place of grpc.aio's own: there, a write that fails because the other end has just ended the call puts
    "Internal error from Core" over the status that the other end gave (grpc/grpc#36066). Raises InvalidStateError for
    a call that has ended, and AioRpcError for one whose status cannot be told yet: it comes after what was sent
    before it, to whoever reads that (`last_word`)."""
    if call.done() or call._done_writing_flag:
        raise asyncio.InvalidStateError("the call has ended, or its writing side has")
    await call.wait_for_connection()
    encode = call._request_serializer
    try:
        await call._cython_call.send_serialized_message(encode(request) if encode else request)
    except cygrpc.InternalError as error:
        if "grpc_call_start_batch" in str(error):  # nothing was begun: this is about us, and no status will come
            call._cython_call.set_internal_error(str(error))
            await call._raise_for_status()
        unknown = grpc.aio.Metadata()
        raise grpc.aio.AioRpcError(
            grpc.StatusCode.UNAVAILABLE, unknown, unknown, details="the other end has ended the call"
        ) from error
    except asyncio.CancelledError:
        call.cancel()
        raise


setattr(_StreamRequestMixin, "_write", _write)  # noqa: B010  # mypy knows nothing of it


@contextlib.asynccontextmanager
async def last_word(call: Any) -> AsyncIterator[None]:
    """Writes inside that fail since the other end has ended the call raise what it said last, as AioRpcError; what it
    said before that is passed over. For who writes and reads in turn."""
    try:
        yield
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        while await call.read() is not grpc.aio.EOF:  # which raises what the call ended with
            pass
        raise


_STATUSES = {code: grpc.StatusCode[code.name] for code in Code}


async def abort(context: Context, error: ShoalError) -> NoReturn:
    """End a call with `error`."""
    await context.abort(_STATUSES[error.code], error.message, errors.trailing_of(error))
    raise AssertionError("abort returned")


async def hang_up(context: Context, serving: asyncio.Task[Any] | None, error: ShoalError) -> None:
    """End a call from outside of its handler, which runs in the task `serving` and may wait for a client that does
    not read. The client hears `error` when it does."""
    aborting = asyncio.ensure_future(abort(context, error))
    # It ends by an exception of gRPC's, or not before the client reads.
    await asyncio.wait((aborting,), timeout=HANG_UP_S)
    if not aborting.cancel():
        aborting.exception()
    if serving is not None:
        serving.cancel()


# (request streams?, response streams?) → how gRPC wants such a handler made.
_MAKE: dict[tuple[bool, bool], Callable[..., Any]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def make_handler(like: Any, behaviour: Callable[..., Any]) -> Any:
    """A handler with the shape and the coders of `like` that does `behaviour`."""
    make = _MAKE[like.request_streaming, like.response_streaming]
    return make(behaviour, like.request_deserializer, like.response_serializer)


def _encoder(serialize: Callable[[Any], bytes] | None) -> Callable[[Any], bytes] | None:
    """A handler may answer with bytes: a message that it has encoded itself, once for many."""
    if serialize is None:
        return None
    return lambda message: message if isinstance(message, bytes) else serialize(message)


class Surround(grpc.aio.ServerInterceptor, abc.ABC):
    """Does something around every call, in the task that serves it: what `around` does before and after its yield."""

    @abc.abstractmethod
    def around(self, method: str, context: Context) -> contextlib.AbstractAsyncContextManager[None]:
        """`method` is "/PACKAGE.SERVICE/METHOD"."""

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        handler = await continuation(details)
        if handler is None:
            return None
        method: str = details.method

        async def one(request: Any, context: Context) -> Any:
            async with self.around(method, context):
                return await (handler.unary_unary or handler.stream_unary)(request, context)

        async def many(request: Any, context: Context) -> None:
            async with self.around(method, context):
                produced = (handler.unary_stream or handler.stream_stream)(request, context)
                if inspect.isawaitable(produced):
                    await produced
                    return
                async with contextlib.aclosing(produced):
                    async for response in produced:
                        await context.write(response)

        return make_handler(handler, many if handler.response_streaming else one)


class Translation(grpc.aio.ServerInterceptor):
    """Wraps every handler so that what it raises reaches the client as what it is, and what it gets is within
    bounds."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._wrapped: dict[str, tuple[Any, Any]] = {}

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        handler = await continuation(details)
        if handler is None:
            return None
        method = details.method
        if handler.response_streaming:  # a relay makes one for each call, of whatever name
            return self._wrap(handler, method)
        inner, wrapped = self._wrapped.get(method, (None, None))
        if inner is not handler:
            wrapped = self._wrap(handler, method)
            self._wrapped[method] = handler, wrapped
        return wrapped

    def _wrap(self, handler: Any, method: str) -> Any:
        if handler.response_streaming:
            behaviour = _stream(handler.stream_stream or handler.unary_stream, method)
        else:
            behaviour = _unary(handler.stream_unary or handler.unary_unary, method)
        parse = measured(handler.request_deserializer, method, self._bounds.bytes_of(method))
        return _MAKE[handler.request_streaming, handler.response_streaming](
            behaviour, parse, _encoder(handler.response_serializer)
        )


def _unary(inner: Callable[..., Any], method: str) -> Callable[..., Any]:
    async def call(request: Any, context: Context) -> Any:
        try:
            return await inner(honest(request), context)
        except Exception as error:  # the boundary: nothing may reach the client untold
            await _fail(error, context, method)

    return call


def _stream(inner: Callable[..., Any], method: str) -> Callable[..., Any]:
    async def call(request: Any, context: Context) -> AsyncIterator[Any]:
        try:
            produced = inner(honest(request), context)
            if inspect.isawaitable(produced):
                await produced
                return
            async for response in produced:
                yield response
        except Exception as error:  # the boundary: nothing may reach the client untold
            await _fail(error, context, method)

    return call


async def _fail(error: Exception, context: Context, method: str) -> None:
    if isinstance(error, ShoalError):
        await abort(context, error)
    # An InternalError of gRPC is an answer that could not be sent: the caller has hung up, and gRPC knows it.
    if isinstance(error, grpc.aio.AbortError | grpc.aio.UsageError | grpc.aio.InternalError):
        raise error
    if isinstance(error, grpc.aio.AioRpcError):
        await abort(context, error_of(error))
    log.error("%s failed", method, exc_info=error)
    told = ShoalError(f"{method} failed: {type(error).__name__}: {error}", hint="the daemon's log has more")
    await abort(context, told)
