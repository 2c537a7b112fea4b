"""Calls of a daemon's services, as stubs that take and give messages, carry the client's metadata and raise ShoalError.

`carrier` says what brings them there; `client` decides which it is. A stub is made of the contract itself, so that
gRPC's generated ones, which import gRPC, are not needed. Calls with streams in both directions are handed out open.
"""

from __future__ import annotations

import asyncio
import copy
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

from cli.carrier import UNAVAILABLE, UNIMPLEMENTED, Carrier, Failure, Stream
from shoal import errors
from shoal.errors import ShoalError, Unavailable
from shoal.v1 import engine_pb2

if TYPE_CHECKING:
    from shoal.v1.build_pb2_grpc import BuildServiceAsyncStub
    from shoal.v1.control_pb2_grpc import ControlServiceAsyncStub
    from shoal.v1.engine_pb2_grpc import (
        ContainerServiceAsyncStub,
        ImageServiceAsyncStub,
        NetworkServiceAsyncStub,
        SystemServiceAsyncStub,
        VolumeServiceAsyncStub,
    )
    from shoal.v1.swarm_pb2_grpc import SwarmServiceAsyncStub

_NODE = "shoal-node"
_CONTROL = "/shoal.v1.ControlService/"
# In the trailing metadata of an answer: for how many seconds the store that it comes from was not heard (`rpc.STALE`).
_STALE = "shoal-stale"


class Calls:
    """A carrier with what every call on it shares. `unreachable` makes the error of a call that found nobody."""

    def __init__(
        self,
        carrier: Carrier,
        *,
        metadata: Sequence[tuple[str, str]],
        unreachable: Callable[[str], Unavailable],
    ) -> None:
        self._carrier = carrier
        self._metadata = tuple(metadata)
        self._unreachable = unreachable
        # Shared by the copies that `at` makes.
        self._warned: list[object] = []

    async def close(self) -> None:
        await self._carrier.close()

    def at(self, node: str) -> Calls:
        """The same connection, for calls that the manager relays to `node`."""
        other = copy.copy(self)
        other._metadata = (*(each for each in self._metadata if each[0] != _NODE), (_NODE, node))
        return other

    def containers(self) -> ContainerServiceAsyncStub:
        return cast("ContainerServiceAsyncStub", _Stub(self, engine_pb2, "ContainerService"))

    def images(self) -> ImageServiceAsyncStub:
        return cast("ImageServiceAsyncStub", _Stub(self, engine_pb2, "ImageService"))

    def builds(self) -> BuildServiceAsyncStub:
        from shoal.v1 import build_pb2  # each of these three costs what most commands do not need

        return cast("BuildServiceAsyncStub", _Stub(self, build_pb2, "BuildService"))

    def networks(self) -> NetworkServiceAsyncStub:
        return cast("NetworkServiceAsyncStub", _Stub(self, engine_pb2, "NetworkService"))

    def volumes(self) -> VolumeServiceAsyncStub:
        return cast("VolumeServiceAsyncStub", _Stub(self, engine_pb2, "VolumeService"))

    def system(self) -> SystemServiceAsyncStub:
        return cast("SystemServiceAsyncStub", _Stub(self, engine_pb2, "SystemService"))

    def swarm(self) -> SwarmServiceAsyncStub:
        from shoal.v1 import swarm_pb2

        return cast("SwarmServiceAsyncStub", _Stub(self, swarm_pb2, "SwarmService"))

    def control(self) -> ControlServiceAsyncStub:
        from shoal.v1 import control_pb2

        return cast("ControlServiceAsyncStub", _Stub(self, control_pb2, "ControlService"))

    def begin(self, method: str, answers: Any, timeout_s: float | None = None) -> Call:
        """An open call; `answers` is the class of its answers."""
        try:
            stream = self._carrier.open(method, self._metadata, timeout_s)
        except Failure as failure:
            raise self.error_of(failure, method) from failure
        return Call(self, stream, method, answers)

    def warn_of_age(self, trailing: Any) -> None:
        """Say, once, that answers may be old."""
        if (seconds := trailing.get(_STALE)) and not self._warned:
            self._warned.append(seconds)
            print(f"Warning: the store was not heard for {seconds} s; what is shown may be old.", file=sys.stderr)

    def error_of(self, failure: Failure, method: str) -> ShoalError:
        said = "shoal-error" in failure.trailing
        if not said and failure.code == UNAVAILABLE:
            return self._unreachable(failure.message or "no answer")
        if not said and failure.code == UNIMPLEMENTED and method.startswith(_CONTROL):
            return Unavailable(
                "This node is not a swarm manager",
                hint="run it on one; 'shoal swarm init' or 'shoal swarm join' make this node part of a cluster",
            )
        return errors.of_status(failure.code, failure.message, failure.trailing)


class Call:
    """One call under way, for who writes and reads by turns or at once."""

    def __init__(self, calls: Calls, stream: Stream, method: str, answers: Any) -> None:
        self._calls = calls
        self._stream = stream
        self._method = method
        self._answers = answers
        self._writing = asyncio.Lock()

    async def write(self, message: Any, *, last: bool = False) -> bool:
        """Whether more may be sent; of a call that is over, nothing is. Several may write: each message stays whole."""
        async with self._writing:
            return await self._stream.write(message.SerializeToString(), last=last)

    async def done_writing(self) -> None:
        async with self._writing:
            await self._stream.done_writing()

    async def read(self) -> Any:
        """The next answer; None after the last. Raises ShoalError."""
        try:
            data = await self._stream.read()
        except Failure as failure:
            raise self._calls.error_of(failure, self._method) from failure
        if data is None:
            self._calls.warn_of_age(self._stream.trailing)
            return None
        return self._answers.FromString(data)

    def cancel(self) -> None:
        self._stream.cancel()


class _Stub:
    """The methods of one service, each in the shape that the contract gives it."""

    def __init__(self, calls: Calls, contract: Any, service: str) -> None:
        self._calls = calls
        self._service = contract.DESCRIPTOR.services_by_name[service]

    def __getattr__(self, name: str) -> Any:
        method = self._service.methods_by_name.get(name)
        if method is None:
            raise AttributeError(f"{self._service.full_name} has no {name}")
        path = f"/{self._service.full_name}/{name}"
        answers = method.output_type._concrete_class

        def begin(timeout: float | None = None) -> Call:
            return self._calls.begin(path, answers, timeout)

        if method.client_streaming and method.server_streaming:
            return begin
        if method.server_streaming:
            return lambda request: _many(begin(), request)
        if method.client_streaming:
            return lambda requests: _one(begin(), _told_all(requests))
        return lambda request, timeout=None: _one(begin(timeout), _told(request))


Telling = Callable[[Call], Awaitable[object]]


def _told(request: Any) -> Telling:
    return lambda call: call.write(request, last=True)


def _told_all(requests: AsyncIterator[Any]) -> Telling:
    async def tell(call: Call) -> None:
        async for request in requests:
            if not await call.write(request):
                break
        await call.done_writing()

    return tell


async def _one(call: Call, tell: Telling) -> Any:
    """The answer to all that is told."""
    try:
        await tell(call)
        answer = await call.read()
        if answer is None:
            raise Unavailable("the daemon said nothing", hint="see its log")
        await call.read()  # how it went comes after the answer
        return answer
    finally:
        call.cancel()


async def _many(call: Call, request: Any) -> AsyncIterator[Any]:
    try:
        await call.write(request, last=True)
        while (answer := await call.read()) is not None:
            yield answer
    finally:
        call.cancel()
