"""Stubs whose calls carry the client's metadata and raise ShoalError. `client` decides where they go.

It stands between a generated stub and its channel, where gRPC's own interceptors would cost each call an extra task.
Streams in both directions are handed out raw; who uses one reads it inside `translated()`.
"""

from __future__ import annotations

import contextlib
import copy
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import grpc
import grpc.aio

from shoal import rpc
from shoal.errors import ShoalError, Unavailable
from shoal.v1 import engine_pb2_grpc

if TYPE_CHECKING:
    from shoal.tls import Identity
    from shoal.v1 import build_pb2_grpc, control_pb2_grpc, swarm_pb2_grpc

_NODE = "shoal-node"
_CONTROL = "/shoal.v1.ControlService/"
# What a process in a container could not be: executed, found.
_OF_THE_COMMAND = (126, 127)


class Calls:
    """A channel with what every call on it shares. `unreachable` makes the error of a call that found nobody."""

    def __init__(
        self,
        target: str,
        *,
        identity: Identity | None,
        metadata: Sequence[tuple[str, str]],
        unreachable: Callable[[str], Unavailable],
    ) -> None:
        self._channel = rpc.dial(target, identity=identity)
        self._metadata = tuple(metadata)
        self._unreachable = unreachable
        # Shared by the copies that `at` makes.
        self._warned: list[object] = []

    async def close(self) -> None:
        await self._channel.close()

    def at(self, node: str) -> Calls:
        """The same connection, for calls that the manager relays to `node`."""
        other = copy.copy(self)
        other._metadata = (*(each for each in self._metadata if each[0] != _NODE), (_NODE, node))
        return other

    def containers(self) -> engine_pb2_grpc.ContainerServiceAsyncStub:
        return engine_pb2_grpc.ContainerServiceStub(self._as_channel())

    def images(self) -> engine_pb2_grpc.ImageServiceAsyncStub:
        return engine_pb2_grpc.ImageServiceStub(self._as_channel())

    def builds(self) -> build_pb2_grpc.BuildServiceAsyncStub:
        from shoal.v1 import build_pb2_grpc  # each of these three costs what most commands do not need

        return build_pb2_grpc.BuildServiceStub(self._as_channel())

    def networks(self) -> engine_pb2_grpc.NetworkServiceAsyncStub:
        return engine_pb2_grpc.NetworkServiceStub(self._as_channel())

    def volumes(self) -> engine_pb2_grpc.VolumeServiceAsyncStub:
        return engine_pb2_grpc.VolumeServiceStub(self._as_channel())

    def system(self) -> engine_pb2_grpc.SystemServiceAsyncStub:
        return engine_pb2_grpc.SystemServiceStub(self._as_channel())

    def swarm(self) -> swarm_pb2_grpc.SwarmServiceAsyncStub:
        from shoal.v1 import swarm_pb2_grpc

        return swarm_pb2_grpc.SwarmServiceStub(self._as_channel())

    def control(self) -> control_pb2_grpc.ControlServiceAsyncStub:
        from shoal.v1 import control_pb2_grpc

        return control_pb2_grpc.ControlServiceStub(self._as_channel())

    def unary_unary(self, method: str, **kwargs: Any) -> Any:
        inner: Any = self._channel.unary_unary(method, **kwargs)

        async def call(request: Any, timeout: float | None = None) -> Any:
            with self.translated(method):
                under_way = inner(request, metadata=self._metadata, timeout=timeout)
                answer = await under_way
                self._warn_of_age(await under_way.trailing_metadata())
                return answer

        return call

    def unary_stream(self, method: str, **kwargs: Any) -> Any:
        inner: Any = self._channel.unary_stream(method, **kwargs)

        async def call(request: Any) -> AsyncIterator[Any]:
            with self.translated(method):
                async for response in inner(request, metadata=self._metadata):
                    yield response

        return call

    def stream_unary(self, method: str, **kwargs: Any) -> Any:
        inner: Any = self._channel.stream_unary(method, **kwargs)

        async def call(requests: AsyncIterator[Any]) -> Any:
            with self.translated(method):
                return await inner(requests, metadata=self._metadata)

        return call

    def stream_stream(self, method: str, **kwargs: Any) -> Any:
        inner: Any = self._channel.stream_stream(method, **kwargs)
        return lambda: inner(metadata=self._metadata)

    @contextlib.contextmanager
    def translated(self, method: str = "") -> Iterator[None]:
        """Calls inside raise ShoalError instead of AioRpcError."""
        try:
            yield
        except grpc.aio.AioRpcError as error:
            raise self._error(error, method) from error

    def _warn_of_age(self, trailing: Any) -> None:
        """Say, once, that answers may be old."""
        if (seconds := dict(trailing or ()).get(rpc.STALE)) and not self._warned:
            self._warned.append(seconds)
            print(f"Warning: the store was not heard for {seconds} s; what is shown may be old.", file=sys.stderr)

    def _error(self, error: grpc.aio.AioRpcError, method: str) -> ShoalError:
        raised = dict(error.trailing_metadata() or ()).get("shoal-error")
        if raised is None and error.code() == grpc.StatusCode.UNAVAILABLE:
            return self._unreachable(error.details() or "no answer")
        if raised is None and error.code() == grpc.StatusCode.UNIMPLEMENTED and method.startswith(_CONTROL):
            return Unavailable(
                "This node is not a swarm manager",
                hint="run it on one; 'shoal swarm init' or 'shoal swarm join' make this node part of a cluster",
            )
        raised = rpc.error_of(error)
        if raised.exit_code not in _OF_THE_COMMAND:
            raised.exit_code = 1  # 125 is for what is wrong with the command line itself, and for `run`
        return raised

    def _as_channel(self) -> grpc.aio.Channel:
        return cast("grpc.aio.Channel", self)
