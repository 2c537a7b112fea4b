"""Endpoint: one address of etcd and the connection to it, with the calls and streams that use it.

What fails raises Fault. An endpoint that was given up breaks its streams, so that they begin anew elsewhere; calls that
are on their way keep waiting for their answer. `client` chooses the endpoint.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Generic, TypeAlias

import grpc
import grpc.aio

from manager.store.etcd import method
from manager.store.etcd.fault import Fault, Outcome, fault_of
from manager.store.etcd.method import A, Method, Q
from manager.store.etcd.settings import EtcdSettings
from shoal.errors import Unavailable
from shoal.etcd.v3 import wire_pb2 as wire

Metadata: TypeAlias = Sequence[tuple[str, str]]

# A watch that catches up gets what a thousand revisions changed in one message, perhaps a GiB; above this, it asks for
# parts.
WATCH_BYTES = 64 << 20
_LIMITS = {"methodConfig": [{"name": [{"service": "etcdserverpb.Watch"}], "maxResponseMessageBytes": WATCH_BYTES}]}
_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.service_config", json.dumps(_LIMITS)),
    # etcd counts pings that come faster than every 5 s, or without a call, as abuse (--grpc-keepalive-min-time).
    ("grpc.keepalive_time_ms", 6_000),
    # gRPC 1.85 ignores grpc.keepalive_timeout_ms.
    ("grpc.http2.ping_timeout_ms", 4_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # Despite its name: how long connecting may take.
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # A renewed certificate needs a new connection.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
]


_WRITE_S = 2.0


class Endpoint:
    def __init__(self, address: str, settings: EtcdSettings) -> None:
        self.address = address
        self._channel = _channel(address, settings)
        self._calls: dict[str, Any] = {}
        self._streams: set[Stream[Any, Any]] = set()

    async def connect(self, timeout_s: float) -> None:
        """Return at once while there is a connection, or else once there is one."""
        if self._channel.get_state() is not grpc.ChannelConnectivity.READY:
            # A call that is turned away says why; the state of a channel does not.
            await self.ask(method.STATUS, wire.StatusRequest(), timeout_s=timeout_s, metadata=())

    async def ask(self, what: Method[Q, A], request: Q, *, timeout_s: float, metadata: Metadata) -> A:
        """One request, one answer; of a stream, the first."""
        if what.streams:
            async with self.stream(what, metadata, timeout_s) as stream:
                await stream.write(request)
                return await stream.read()
        call = self._calls.get(what.path)
        if call is None:
            call = self._channel.unary_unary(
                what.path,
                request_serializer=what.request.SerializeToString,
                response_deserializer=what.answer.FromString,
            )
            self._calls[what.path] = call
        try:
            answer: A = await call(request, timeout=timeout_s, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            raise fault_of(error) from error
        return answer

    def stream(self, what: Method[Q, A], metadata: Metadata, timeout_s: float | None = None) -> Stream[Q, A]:
        """A call in both directions; to be used as a context."""
        call = self._channel.stream_stream(
            what.path, request_serializer=what.request.SerializeToString, response_deserializer=what.answer.FromString
        )
        return Stream(call(metadata=metadata, timeout=timeout_s), self._streams)

    def give_up(self) -> None:
        """Break the streams."""
        for stream in tuple(self._streams):
            stream.give_up()

    async def close(self, grace_s: float = 0) -> None:
        """Calls on their way get `grace_s` for their answer."""
        self.give_up()
        await self._channel.close(grace_s)


class Stream(Generic[Q, A]):
    """Ends with its context. Its methods raise Fault when it breaks, is ended by etcd, or is given up."""

    def __init__(self, call: Any, streams: set[Stream[Any, Any]]) -> None:
        self._call = call
        self._streams = streams
        self._given_up = False

    async def __aenter__(self) -> Stream[Q, A]:
        self._streams.add(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._streams.discard(self)
        self._call.cancel()

    def give_up(self) -> None:
        self._given_up = True
        self._call.cancel()

    async def write(self, request: Q) -> None:
        try:
            # A write to a call that is cancelled before it has reached the other end waits for ever (gRPC 1.85).
            async with asyncio.timeout(_WRITE_S):
                await self._call.write(request)
        except TimeoutError as error:
            raise ended("no answer in time") from error
        except grpc.aio.AioRpcError as error:
            raise fault_of(error) from error
        except asyncio.InvalidStateError as error:
            raise ended("the stream has ended") from error
        except asyncio.CancelledError:
            self._check_given_up()
            raise

    async def read(self) -> A:
        try:
            answer: A = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise fault_of(error) from error
        except asyncio.CancelledError:
            self._check_given_up()
            raise
        if answer is grpc.aio.EOF:  # type: ignore[comparison-overlap]  # gRPC's end of a stream
            raise ended("the stream has ended")
        return answer

    def _check_given_up(self) -> None:
        """gRPC tells of a call that was cancelled as if our own task had been."""
        task = asyncio.current_task()
        if self._given_up and task is not None and not task.cancelling():
            raise ended("another endpoint is tried")


def ended(why: str) -> Fault:
    return Fault(Outcome.UNSURE, why, Unavailable(f"etcd: {why}"))


def _channel(address: str, settings: EtcdSettings) -> grpc.aio.Channel:
    if not settings.ca_pem:
        return grpc.aio.insecure_channel(address, options=_OPTIONS)
    options = list(_OPTIONS)
    if settings.server_name:
        options.append(("grpc.ssl_target_name_override", settings.server_name))
    credentials = grpc.ssl_channel_credentials(
        root_certificates=settings.ca_pem.encode(),
        private_key=settings.key_pem.encode() or None,
        certificate_chain=settings.certificate_pem.encode() or None,
    )
    return grpc.aio.secure_channel(address, credentials, options=options)
