"""Lanes: the same answers as gRPC gives, from the same handlers; a client that misbehaves harms its own call alone."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from agent.api import lane as served
from agent.api.server import Elsewhere, Local, serve_local
from cli.calls import Calls
from cli.carrier import Failure
from cli.lane import Lane, Lanes
from shoal import lane
from shoal.errors import CommandNotFound, Conflict, Exhausted, ShoalError, Unavailable
from shoal.forward import Forward
from shoal.v1 import control_pb2, engine_pb2, engine_pb2_grpc
from shoal.v1.lane_pb2 import LaneOpen, LaneStatus

DEADLINE_S = 60.0
PATH = "/shoal.v1.ContainerService/"
CHUNK = b"x" * (256 << 10)


class Containers(engine_pb2_grpc.ContainerServiceServicer):
    """One method of each shape. `cancelled` is set when a stream of it is."""

    def __init__(self) -> None:
        self.cancelled = asyncio.Event()
        self.began = asyncio.Event()
        self.written = 0
        self.may_read = asyncio.Event()

    async def StartContainer(self, request: engine_pb2.StartContainerRequest, context: Any) -> Any:
        match request.container:
            case "torn":
                raise Conflict("it is torn", hint="mend it")
            case "odd":
                raise CommandNotFound("no such command")
            case "broken":
                raise RuntimeError("a fault")
            case "slow":
                await asyncio.Event().wait()
        context.set_trailing_metadata((("shoal-stale", "7"),))
        return engine_pb2.StartContainerResponse()

    async def ExportContainer(self, request: engine_pb2.ExportContainerRequest, context: Any) -> AsyncIterator[Any]:
        self.began.set()
        try:
            for number in range(int(request.container)):
                yield engine_pb2.ExportContainerResponse(chunk=CHUNK)
                self.written = number + 1
        finally:
            self.cancelled.set()

    async def WriteArchive(self, requests: AsyncIterator[engine_pb2.WriteArchiveRequest], context: Any) -> Any:
        got = bytearray()
        async for each in requests:
            if each.WhichOneof("request") == "open" and each.open.container == "full":
                raise Exhausted("no room")
            got += each.chunk
        return engine_pb2.WriteArchiveResponse() if got == b"abc" else None

    async def ExecContainer(self, requests: AsyncIterator[engine_pb2.ExecContainerRequest], context: Any) -> Any:
        self.began.set()
        try:
            await self.may_read.wait()
            async for each in requests:
                yield engine_pb2.ExecContainerResponse(stdout=each.stdin)
            yield engine_pb2.ExecContainerResponse(exit=engine_pb2.Exit(code=3))
        finally:
            self.cancelled.set()


@pytest.fixture
def containers() -> Containers:
    return Containers()


@pytest.fixture
async def socket_path(tmp_path: Path, containers: Containers) -> AsyncIterator[str]:
    async def nowhere(_method: str, _metadata: Any) -> grpc.aio.Channel:
        raise Unavailable("nobody there")

    forward = Forward(("shoal.v1.ControlService", "shoal.v1.ContainerService"), nowhere, whom=lambda metadata: "it")
    path = tmp_path / "s"
    server: Local = await serve_local(
        path,
        [lambda server: engine_pb2_grpc.add_ContainerServiceServicer_to_server(containers, server)],
        forward,
        elsewhere=Elsewhere(forward, lambda: "n1"),
    )
    yield lane.beside(str(path))
    await server.stop(0)


@contextlib.asynccontextmanager
async def lanes(folder: Path, handlers: served.Handlers | None = None, **bounds: Any) -> AsyncIterator[str]:
    """A server with bounds of its own."""
    made = served.Lanes(handlers or served.Handlers(()), **bounds)
    await made.listen(folder / "alone")
    yield str(folder / "alone")
    await made.stop(0)


@pytest.fixture
def calls(socket_path: str) -> Calls:
    return Calls(Lanes(socket_path), metadata=[], unreachable=Unavailable)


def raw(path: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.connect(path)
    made.setblocking(False)
    return made


async def answer(connection: socket.socket) -> LaneStatus:
    """What the agent says last, once it has hung up."""
    loop = asyncio.get_running_loop()
    frames, found = lane.Frames(), []
    async with asyncio.timeout(DEADLINE_S):
        try:
            while data := await loop.sock_recv(connection, 1 << 20):
                found += frames.feed(data)
        except ConnectionResetError:  # it hung up on what it had not read
            pass
    kind, payload = found[-1]
    assert kind == lane.STATUS
    return LaneStatus.FromString(payload)


def opening(name: str) -> bytes:
    return lane.frame(lane.OPEN, LaneOpen(method=PATH + name).SerializeToString())


async def test_only_root_and_whom_it_lets_may_open_it(socket_path: str) -> None:
    assert stat.S_IMODE(Path(socket_path).stat().st_mode) == 0o660


async def test_calls_of_each_shape_are_answered(calls: Calls, containers: Containers) -> None:
    stub = calls.containers()
    await stub.StartContainer(engine_pb2.StartContainerRequest(container="web"))
    chunks = [each.chunk async for each in stub.ExportContainer(engine_pb2.ExportContainerRequest(container="9"))]
    assert chunks == [CHUNK] * 9

    async def pieces() -> AsyncIterator[engine_pb2.WriteArchiveRequest]:
        for each in (b"a", b"b", b"c"):
            yield engine_pb2.WriteArchiveRequest(chunk=each)

    await stub.WriteArchive(pieces())
    containers.may_read.set()
    call: Any = stub.ExecContainer()
    for each in (b"one", b"two"):
        await call.write(engine_pb2.ExecContainerRequest(stdin=each))
        assert (await call.read()).stdout == each
    await call.done_writing()
    assert (await call.read()).exit.code == 3
    assert await call.read() is None
    call.cancel()


async def test_a_command_on_its_own_host_imports_no_grpc(socket_path: str) -> None:
    heavy = ("grpc", "cryptography", "msgspec", "urllib.request", "_ssl", "google.protobuf.internal.python_message")
    code = "import sys, shoal; from cli.app import run; done = run(sys.argv[1:]); print(done, [*sys.modules])"
    argv = ["-H", f"unix://{socket_path.removesuffix('.lane')}", "start", "web"]
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, *argv, stdout=asyncio.subprocess.PIPE)
    said, _ = await asyncio.wait_for(process.communicate(), DEADLINE_S)
    name, rest = said.decode().split("\n", 1)
    assert (name, rest[:1]) == ("web", "0")
    assert [each for each in heavy if f"'{each}'" in rest] == []


async def test_errors_come_as_they_were_raised(calls: Calls) -> None:
    stub = calls.containers()
    for container, kind, code in (("torn", Conflict, 125), ("odd", CommandNotFound, 127), ("broken", ShoalError, 125)):
        with pytest.raises(kind) as caught:
            await stub.StartContainer(engine_pb2.StartContainerRequest(container=container))
        assert (type(caught.value), caught.value.run_code) == (kind, code)
        assert container != "torn" or caught.value.hint == "mend it"


async def test_what_is_another_nodes_or_the_managers_is_passed_on(calls: Calls) -> None:
    with pytest.raises(Unavailable, match="nobody there"):
        await calls.control().ListNodes(control_pb2.ListNodesRequest())
    with pytest.raises(Unavailable, match="nobody there"):
        await calls.at("n2").containers().StartContainer(engine_pb2.StartContainerRequest(container="web"))
    await calls.at("n1").containers().StartContainer(engine_pb2.StartContainerRequest(container="web"))


async def test_an_answer_that_may_be_old_says_so(calls: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    await calls.containers().StartContainer(engine_pb2.StartContainerRequest(container="web"))
    assert "not heard for 7 s" in capsys.readouterr().err


async def test_a_call_has_the_time_that_it_was_given(calls: Calls) -> None:
    with pytest.raises(ShoalError, match="Deadline"):
        await calls.containers().StartContainer(engine_pb2.StartContainerRequest(container="slow"), timeout=0.05)


async def test_an_upload_that_is_refused_is_not_read_to_its_end(calls: Calls) -> None:
    sent = 0

    async def endless() -> AsyncIterator[engine_pb2.WriteArchiveRequest]:
        nonlocal sent
        yield engine_pb2.WriteArchiveRequest(open=engine_pb2.WriteArchiveOpen(container="full"))
        while True:
            sent += 1
            yield engine_pb2.WriteArchiveRequest(chunk=CHUNK)

    async with asyncio.timeout(DEADLINE_S):
        with pytest.raises(Exhausted, match="no room"):
            await calls.containers().WriteArchive(endless())


async def test_a_client_that_does_not_read_holds_up_its_call(socket_path: str, containers: Containers) -> None:
    with raw(socket_path) as connection:
        asked = engine_pb2.ExportContainerRequest(container="1000").SerializeToString()
        connection.send(opening("ExportContainer") + lane.frame(lane.MESSAGE, asked))
        await asyncio.wait_for(containers.began.wait(), DEADLINE_S)
        before = -1
        while not containers.written or containers.written != before:  # until nothing more fits
            before = containers.written
            await asyncio.sleep(0.1)
        assert 0 < containers.written < 100
        assert not containers.cancelled.is_set()
    await asyncio.wait_for(containers.cancelled.wait(), DEADLINE_S)


async def test_a_call_ends_with_its_client_even_while_nothing_of_it_is_read(
    socket_path: str, containers: Containers
) -> None:
    connection = raw(socket_path)
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(connection, opening("ExecContainer"))
    piece = lane.frame(lane.MESSAGE, engine_pb2.ExecContainerRequest(stdin=CHUNK).SerializeToString())
    with pytest.raises(TimeoutError):  # more than it takes unread
        async with asyncio.timeout(1):
            for _ in range(1000):
                await loop.sock_sendall(connection, piece)
    assert not containers.cancelled.is_set()
    connection.close()
    await asyncio.wait_for(containers.cancelled.wait(), DEADLINE_S)


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "no frame"),
        (b"\x01\xff\xff\xff\xff", "are allowed"),
        (lane.frame(lane.OPEN, b"\xff\xff"), "cannot be read"),
        (lane.frame(lane.MESSAGE, b""), "begins with the method"),
        (lane.frame(lane.OPEN, LaneOpen(method="/nobody/Knows").SerializeToString()), "has no /nobody/Knows"),
        (opening("StartContainer") + lane.frame(lane.END), "takes one message"),
        (opening("StartContainer") + lane.frame(lane.MESSAGE, b"\xff"), "cannot be read"),
        (opening("WriteArchive") + opening("WriteArchive"), "one beginning"),
    ],
)
async def test_what_is_no_call_is_refused_with_a_sentence(socket_path: str, sent: bytes, why: str) -> None:
    with raw(socket_path) as connection:
        connection.send(sent)
        status = await answer(connection)
    assert status.code
    assert why in status.message


async def test_who_says_nothing_is_sent_away(tmp_path: Path) -> None:
    async with lanes(tmp_path, opening_s=0.05) as path:
        with raw(path) as connection:
            assert "nothing was said" in (await answer(connection)).message


async def test_a_client_may_think_before_it_calls_and_before_it_sends(tmp_path: Path, containers: Containers) -> None:
    handlers = served.Handlers(())
    engine_pb2_grpc.add_ContainerServiceServicer_to_server(containers, handlers)  # type: ignore[arg-type]
    async with lanes(tmp_path, handlers, opening_s=1) as path:
        calls = Calls(Lanes(path, fresh_s=0.0), metadata=[], unreachable=Unavailable)
        await asyncio.sleep(1.2)

        async def pieces() -> AsyncIterator[engine_pb2.WriteArchiveRequest]:
            await asyncio.sleep(1.2)
            yield engine_pb2.WriteArchiveRequest(chunk=b"abc")

        await calls.containers().WriteArchive(pieces())


async def test_garbage_takes_nobody_else_down(socket_path: str, calls: Calls) -> None:
    chance = random.Random(7)
    for _ in range(200):
        with raw(socket_path) as connection:
            beginning = opening("ExecContainer") if chance.random() < 0.5 else b""
            connection.send(beginning + chance.randbytes(chance.randrange(1, 300)))
            await asyncio.sleep(0)
    await calls.containers().StartContainer(engine_pb2.StartContainerRequest(container="web"))


async def test_calls_are_bounded(tmp_path: Path) -> None:
    async with lanes(tmp_path, calls=1) as path:
        with raw(path), raw(path) as more:
            assert "serves 1 local calls already" in (await answer(more)).message


async def test_an_agent_that_ends_in_the_middle_is_told_as_one_that_cannot_be_reached(tmp_path: Path) -> None:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "s.lane"))
    listening.listen()
    stream = Lanes(str(tmp_path / "s.lane")).open("/a/b", [], None)
    accepted, _ = listening.accept()
    assert await stream.write(b"x")
    accepted.close()
    with pytest.raises(Failure) as caught:
        await stream.read()
    assert caught.value.code == 14
    stream.cancel()
    listening.close()


async def test_half_a_frame_is_the_last_thing_that_is_sent() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    stream = Lane(ours, b"")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await stream.write(bytes(8 << 20))
    assert not await stream.write(b"more")
    theirs.close()
    stream.cancel()


async def test_a_question_of_one_message_is_one_send() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # which keeps sends apart
    ours.setblocking(False)
    stream = Lane(ours, lane.frame(lane.OPEN, b"method"))
    await stream.write(b"x", last=True)
    assert theirs.recv(100) == lane.frame(lane.OPEN, b"method") + lane.frame(lane.MESSAGE, b"x") + lane.frame(lane.END)
    theirs.close()
    stream.cancel()


async def test_what_is_called_is_said_though_no_message_comes() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    stream = Lane(ours, lane.frame(lane.OPEN, b"method"))
    async with asyncio.timeout(DEADLINE_S):
        assert await asyncio.get_running_loop().sock_recv(theirs, 100) == lane.frame(lane.OPEN, b"method")
    theirs.close()
    stream.cancel()


async def test_an_agent_that_ends_lets_calls_come_to_their_end(tmp_path: Path, containers: Containers) -> None:
    forward = Forward((), lambda *_: None, whom=lambda metadata: "it")  # type: ignore[arg-type,return-value]
    add = [lambda server: engine_pb2_grpc.add_ContainerServiceServicer_to_server(containers, server)]
    server = await serve_local(tmp_path / "s", add, forward)
    calls = Calls(Lanes(f"{tmp_path}/s.lane"), metadata=[], unreachable=Unavailable)
    call: Any = calls.containers().ExecContainer()
    await call.write(engine_pb2.ExecContainerRequest(stdin=b"x"))
    await asyncio.wait_for(containers.began.wait(), DEADLINE_S)
    ending = asyncio.ensure_future(server.stop(DEADLINE_S))
    containers.may_read.set()
    await call.done_writing()
    assert (await call.read()).stdout == b"x"
    assert (await call.read()).exit.code == 3
    await ending
    assert not Path(f"{tmp_path}/s.lane").exists()
    call.cancel()


async def test_messages_of_several_writers_stay_whole(calls: Calls, containers: Containers) -> None:
    call: Any = calls.containers().ExecContainer()
    sent = [engine_pb2.ExecContainerRequest(stdin=bytes([number]) * (300 << 10)) for number in range(8)]
    writing = asyncio.gather(*(call.write(each) for each in sent))
    containers.may_read.set()
    came = [(await call.read()).stdout for _ in sent]
    await writing
    assert came == [each.stdin for each in sent]
    call.cancel()
