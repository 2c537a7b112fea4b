"""Bounds of a server, over real sockets: what is above them is refused in a sentence, and the rest goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from shoal import rpc
from shoal.bound import Bounds
from shoal.errors import Exhausted, Unavailable
from shoal.v1 import dispatcher_pb2 as wire
from shoal.v1 import dispatcher_pb2_grpc

SERVICE = "shoal.v1.DispatcherService"


class Dispatcher(dispatcher_pb2_grpc.DispatcherServiceServicer):
    """Answers at once, or only when told to; a session echoes how many statuses each message had, while it reads."""

    def __init__(self) -> None:
        self.answering = asyncio.Event()
        self.reading = asyncio.Event()
        self.reading.set()
        self.waiting = 0

    async def LocateImage(self, request: wire.LocateImageRequest, context: Any) -> wire.LocateImageResponse:
        self.waiting += 1
        if request.reference == "wait":
            await self.answering.wait()
        return wire.LocateImageResponse()

    async def Session(self, requests: AsyncIterator[wire.SessionRequest], context: Any) -> AsyncIterator[Any]:
        await self.reading.wait()
        async for request in requests:
            count = len(request.reports.reports)
            # As the dispatcher does for what it tells many: encoded by the handler.
            yield wire.SessionResponse(assignments=wire.Assignments(sequence=count)).SerializeToString()


@asynccontextmanager
async def serving(path: Path, bounds: Bounds) -> AsyncIterator[tuple[Dispatcher, Any]]:
    server, servicer = rpc.new_server(bounds=bounds), Dispatcher()
    dispatcher_pb2_grpc.add_DispatcherServiceServicer_to_server(servicer, server)
    server.add_insecure_port(f"unix:{path}/socket")
    await server.start()
    async with rpc.dial(f"unix:{path}/socket") as channel:
        yield servicer, dispatcher_pb2_grpc.DispatcherServiceStub(channel)
    await server.stop(None)


async def test_a_service_takes_messages_up_to_its_own_bound(tmp_path: Path) -> None:
    async with serving(tmp_path, Bounds(service_bytes={SERVICE: 1000})) as (_, stub):
        await stub.LocateImage(wire.LocateImageRequest(reference="x" * 990))
        with pytest.raises(Exhausted, match=r"LocateImage has 1003 bytes, 1000 are allowed"), rpc.translated():
            await stub.LocateImage(wire.LocateImageRequest(reference="x" * 1000))


async def test_a_stream_ends_at_a_message_that_is_too_long(tmp_path: Path) -> None:
    async with serving(tmp_path, Bounds(service_bytes={SERVICE: 1000})) as (_, stub):
        call = stub.Session()
        for count in (1, 2):
            reports = wire.TaskReports(reports=[wire.TaskReport(task_id="t")] * count)
            await call.write(wire.SessionRequest(reports=reports))
            assert (await call.read()).assignments.sequence == count
        reports = wire.TaskReports(reports=[wire.TaskReport(task_id="t")] * 1000)
        await call.write(wire.SessionRequest(reports=reports))
        with pytest.raises(Exhausted, match=r"Session has \d+ bytes, 1000 are allowed"), rpc.translated():
            await call.read()


async def test_a_connection_has_so_many_calls_at_once(tmp_path: Path) -> None:
    async with serving(tmp_path, Bounds(streams=2)) as (servicer, stub):
        await stub.LocateImage(wire.LocateImageRequest())  # a client knows the bound once it is connected
        calls = [asyncio.ensure_future(_located(stub)) for _ in range(5)]
        async with asyncio.timeout(60):
            while servicer.waiting < 3:
                await asyncio.sleep(0.01)
        await asyncio.wait(calls, timeout=0.1)
        assert servicer.waiting == 3
        servicer.answering.set()
        ended = await asyncio.gather(*calls, return_exceptions=True)
        # The others have waited; or were sent away, and may try again.
        assert all(each is None or isinstance(each, Unavailable) for each in ended)
        assert sum(each is None for each in ended) >= 2


async def test_calls_above_what_a_server_does_at_once_are_refused(tmp_path: Path) -> None:
    async with serving(tmp_path, Bounds(calls=2)) as (servicer, stub):
        calls = [asyncio.ensure_future(_located(stub)) for _ in range(5)]
        refused, waiting = await asyncio.wait(calls, timeout=10, return_when=asyncio.FIRST_COMPLETED)
        assert all(isinstance(call.exception(), Exhausted) for call in refused)
        servicer.answering.set()
        ended = await asyncio.gather(*waiting, return_exceptions=True)
        assert sum(each is None for each in ended) == 2


async def _located(stub: Any) -> None:
    with rpc.translated():
        await stub.LocateImage(wire.LocateImageRequest(reference="wait"), timeout=10)


async def test_a_server_says_how_much_of_a_stream_comes_before_it_is_read(tmp_path: Path) -> None:
    reports = wire.TaskReports(reports=[wire.TaskReport(task_id="t" * (64 << 10))])
    async with serving(tmp_path, Bounds(ahead_bytes=1 << 20)) as (servicer, stub):
        servicer.reading.clear()
        call = stub.Session()
        async with asyncio.timeout(60):
            for _ in range(12):
                await call.write(wire.SessionRequest(reports=reports))
        call.cancel()
