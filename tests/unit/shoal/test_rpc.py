"""Errors, identities and relays over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from shoal import rpc, tls
from shoal.errors import CommandNotFound, Conflict, NotFound, ShoalError, Unavailable
from shoal.forward import Forward
from shoal.model.node import Role
from shoal.v1 import engine_pb2, engine_pb2_grpc


class Engine(engine_pb2_grpc.ContainerServiceServicer):
    """Fails or answers by the name of the container asked for."""

    seen: tls.Peer | None = None

    def __init__(self) -> None:
        self.called = asyncio.Event()

    async def GetContainer(self, request: engine_pb2.GetContainerRequest, context: Any) -> Any:
        self.seen = tls.peer_of(context)
        match request.container:
            case "missing":
                raise NotFound("No such container: missing", hint="see shoal ps -a — or ask")
            case "command":
                raise CommandNotFound("nosuch: executable file not found in $PATH")
            case "slow":
                self.called.set()
                await asyncio.Event().wait()
            case "bug":
                raise ZeroDivisionError("oops")
        return engine_pb2.GetContainerResponse()

    async def ReadLogs(self, request: engine_pb2.ReadLogsRequest, context: Any) -> AsyncIterator[Any]:
        for count in range(3):
            yield engine_pb2.ReadLogsResponse(lines=[engine_pb2.LogLine(at_ns=count, data=b"x")])
        raise Conflict("logs broke off")

    async def AttachContainer(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            if request.stdin == b"enough":
                for _ in range(3):
                    yield engine_pb2.AttachContainerResponse(stdout=b"so much")
                raise Conflict("it has heard enough", hint="be brief")
            yield engine_pb2.AttachContainerResponse(stdout=request.stdin)


@asynccontextmanager
async def serving(address: str, *handlers: Any, credentials: Any = None) -> AsyncIterator[int]:
    server = rpc.new_server()
    for handler in handlers:
        if isinstance(handler, Forward):
            server.add_generic_rpc_handlers((handler,))
        else:
            engine_pb2_grpc.add_ContainerServiceServicer_to_server(handler, server)
    port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


class Authority:
    """A root that makes node certificates as the manager's does."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        ca = trustme.CA()
        self.ca = ca
        self.root_pem = ca.cert_pem.bytes().decode()

    def identity(self, node_id: str, role: str) -> tls.Identity:
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = x509.load_pem_x509_certificate(self.ca.cert_pem.bytes())
        signer = serialization.load_pem_private_key(self.ca.private_key_pem.bytes(), None)
        assert isinstance(signer, ec.EllipticCurvePrivateKey)
        names = [(NameOID.COMMON_NAME, node_id), (NameOID.ORGANIZATION_NAME, "c1")]
        names.append((NameOID.ORGANIZATIONAL_UNIT_NAME, role))
        subject = x509.Name([x509.NameAttribute(oid, value) for oid, value in names])
        dns = [tls.node_name(node_id)] + ([tls.MANAGER_NAME] if role == "manager" else [])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(issuer.not_valid_before_utc)
            .not_valid_after(issuer.not_valid_after_utc)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in dns]), critical=False)
            .sign(signer, hashes.SHA256())
        )
        pem = certificate.public_bytes(serialization.Encoding.PEM).decode() + self.root_pem
        return tls.Identity(pem, tls.key_to_pem(key), self.root_pem)


@pytest.fixture(scope="module")
def authority() -> Iterator[Authority]:
    yield Authority()


async def get(target: str, container: str, **options: Any) -> Any:
    async with rpc.dial(target, **options) as channel:
        stub = engine_pb2_grpc.ContainerServiceStub(channel)
        with rpc.translated():
            return await stub.GetContainer(engine_pb2.GetContainerRequest(container=container), timeout=10)


async def test_errors_arrive_as_what_they_are(tmp_path: Path) -> None:
    target = f"unix:{tmp_path}/s"
    async with serving(target, Engine()):
        with pytest.raises(NotFound) as missing:
            await get(target, "missing")
        assert str(missing.value) == "No such container: missing; see shoal ps -a — or ask"
        with pytest.raises(CommandNotFound) as command:
            await get(target, "command")
        assert command.value.run_code == 127
        with pytest.raises(ShoalError, match="ZeroDivisionError: oops"):
            await get(target, "bug")


async def test_nobody_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        await get(f"unix:{tmp_path}/nobody", "x")


@pytest.mark.parametrize("closed", [True, False])
async def test_only_who_was_cancelled_is_and_not_whose_channel_was_closed(tmp_path: Path, closed: bool) -> None:
    engine = Engine()
    async with serving(f"unix:{tmp_path}/a.sock", engine):
        channel = rpc.dial(f"unix:{tmp_path}/a.sock")

        async def ask() -> None:
            with rpc.translated():
                await engine_pb2_grpc.ContainerServiceStub(channel).GetContainer(
                    engine_pb2.GetContainerRequest(container="slow")
                )

        asking = asyncio.create_task(ask())
        await engine.called.wait()
        if closed:
            await channel.close()
        else:
            asking.cancel()
        with pytest.raises(Unavailable if closed else asyncio.CancelledError):
            await asking
        await channel.close()


async def test_stream_delivers_what_came_before_its_error(tmp_path: Path) -> None:
    target = f"unix:{tmp_path}/s"
    async with serving(target, Engine()), rpc.dial(target) as channel:
        received = []
        with pytest.raises(Conflict, match="logs broke off"), rpc.translated():
            call = engine_pb2_grpc.ContainerServiceStub(channel).ReadLogs(engine_pb2.ReadLogsRequest())
            async for response in call:
                received.append(response.lines[0].at_ns)  # noqa: PERF401  # what came before the error counts
        assert received == [0, 1, 2]


@pytest.mark.parametrize("relayed", [False, True], ids=["straight", "relayed"])
async def test_why_a_call_ended_is_told_to_a_client_that_still_sends(tmp_path: Path, relayed: bool) -> None:
    inner, outer = f"unix:{tmp_path}/inner", f"unix:{tmp_path}/outer"
    async with serving(inner, Engine()), rpc.dial(inner) as channel:

        async def choose(method: str, metadata: rpc.Metadata) -> grpc.aio.Channel:
            return channel

        async with serving(outer, relaying(choose)), rpc.dial(outer if relayed else inner) as client:
            for _ in range(30):
                stub = engine_pb2_grpc.ContainerServiceStub(client)
                with pytest.raises(Conflict, match="it has heard enough; be brief"), rpc.translated():
                    await send_until_it_ends(stub.AttachContainer())
                with pytest.raises(Conflict, match="it has heard enough; be brief"), rpc.translated():
                    async for _ in stub.AttachContainer(words()):
                        pass


async def words() -> AsyncIterator[Any]:
    yield engine_pb2.AttachContainerRequest(stdin=b"enough")
    while True:
        yield engine_pb2.AttachContainerRequest(stdin=b"and more")


async def send_until_it_ends(call: Any) -> None:
    async with rpc.last_word(call):
        async for word in words():
            await call.write(word)


async def test_mutual_tls_tells_the_peer(authority: Authority) -> None:
    engine, server = Engine(), authority.identity("m1", "manager")
    credentials = tls.server_credentials(lambda: server, require_client=True)
    async with serving("127.0.0.1:0", engine, credentials=credentials) as port:
        worker = authority.identity("w1", "worker")
        await get(f"127.0.0.1:{port}", "x", identity=worker)
        assert engine.seen == tls.Peer("w1", Role.WORKER, "c1")
        with pytest.raises(Unavailable):
            await get(f"127.0.0.1:{port}", "x", identity=Authority().identity("w1", "worker"))
        with pytest.raises(Unavailable):
            await get(f"127.0.0.1:{port}", "x", root_ca_pem=authority.root_pem)
        with pytest.raises(Unavailable):
            await get(f"127.0.0.1:{port}", "x", identity=worker, server_name=tls.node_name("other"))


async def test_renewed_certificate_is_live_at_once(authority: Authority) -> None:
    shown = [authority.identity("a", "manager")]
    credentials = tls.server_credentials(lambda: shown[0], require_client=True)
    async with serving("127.0.0.1:0", Engine(), credentials=credentials) as port:
        client = authority.identity("w", "worker")
        await get(f"127.0.0.1:{port}", "x", identity=client, server_name=tls.node_name("a"))
        shown[0] = authority.identity("b", "manager")
        await get(f"127.0.0.1:{port}", "x", identity=client, server_name=tls.node_name("b"))


def relaying(choose: Any) -> Forward:
    return Forward(["shoal.v1.ContainerService"], choose, whom=lambda metadata: "node n2")


async def test_forward_says_who_does_not_answer(tmp_path: Path) -> None:
    outer = f"unix:{tmp_path}/outer"
    async with rpc.dial(f"unix:{tmp_path}/nobody") as channel:

        async def choose(method: str, metadata: rpc.Metadata) -> grpc.aio.Channel:
            return channel

        async with serving(outer, relaying(choose)):
            with pytest.raises(Unavailable, match="node n2 does not answer: "):
                await get(outer, "x")


@asynccontextmanager
async def distant(port: int, one_way_s: float) -> AsyncIterator[int]:
    """A port that leads to `port` of this host, as if it were so far away."""
    loop = asyncio.get_running_loop()
    ways: list[asyncio.StreamWriter] = []

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ways.append(writer)
        while data := await reader.read(65536):
            loop.call_later(one_way_s, writer.write, data)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(carry(reader, back), carry(there, writer))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        for way in ways:
            way.close()
        server.close()


async def test_a_host_far_away_is_reached(authority: Authority) -> None:
    credentials = tls.server_credentials(lambda: authority.identity("a", "manager"), require_client=True)
    async with serving("127.0.0.1:0", Engine(), credentials=credentials) as port, distant(port, 0.15) as far:
        await get(f"127.0.0.1:{far}", "x", identity=authority.identity("w", "worker"))


async def test_forward_relays_calls_streams_and_errors(tmp_path: Path) -> None:
    inner, outer = f"unix:{tmp_path}/inner", f"unix:{tmp_path}/outer"
    chosen: list[tuple[str, Any]] = []
    async with serving(inner, Engine()), rpc.dial(inner) as channel:

        async def choose(method: str, metadata: rpc.Metadata) -> grpc.aio.Channel:
            chosen.append((method, dict(metadata).get("shoal-node")))
            if dict(metadata).get("shoal-node") == "gone":
                raise NotFound("node gone is not here")
            return channel

        async with serving(outer, relaying(choose)), rpc.dial(outer) as client:
            with pytest.raises(NotFound, match="No such container: missing; see shoal ps"):
                await get(outer, "missing")
            stub = engine_pb2_grpc.ContainerServiceStub(client)
            call = stub.AttachContainer()
            for word in (b"one", b"two"):
                await call.write(engine_pb2.AttachContainerRequest(stdin=word))
                answer = await call.read()
                assert isinstance(answer, engine_pb2.AttachContainerResponse)
                assert answer.stdout == word
            await call.done_writing()
            assert await call.read() is grpc.aio.EOF
            with pytest.raises(NotFound, match="node gone"), rpc.translated():
                request = engine_pb2.GetContainerRequest(container="x")
                await stub.GetContainer(request, metadata=(("shoal-node", "gone"),))
            images = engine_pb2_grpc.ImageServiceStub(client)
            with pytest.raises(ShoalError), rpc.translated():
                await images.ListImages(engine_pb2.ListImagesRequest())
    assert chosen[0] == ("/shoal.v1.ContainerService/GetContainer", None)
    assert chosen[-1][1] == "gone"


async def test_an_error_for_a_caller_that_hung_up_is_no_fault(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    asked, gone = asyncio.Event(), asyncio.Event()

    class Slow(Engine):
        async def GetContainer(self, request: engine_pb2.GetContainerRequest, context: Any) -> Any:
            asked.set()
            # The caller's end cancels this call; the answer is tried all the same, as where both cross on the way.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            try:
                await context.abort(grpc.StatusCode.NOT_FOUND, "nobody hears this")
            finally:
                gone.set()

    address = f"unix:{tmp_path}/engine"
    async with serving(address, Slow()):
        call = asyncio.create_task(get(address, "x"))
        await asyncio.wait_for(asked.wait(), 60)
        call.cancel()
        await asyncio.wait_for(gone.wait(), 60)
    assert not [each for each in caplog.records if each.name == rpc.__name__]


async def test_forward_ends_the_inner_call_when_the_client_goes(tmp_path: Path) -> None:
    ended = asyncio.Event()

    class Endless(Engine):
        async def AttachContainer(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
            try:
                yield engine_pb2.AttachContainerResponse(ready=True)
                await asyncio.Event().wait()
            finally:
                ended.set()

    inner, outer = f"unix:{tmp_path}/inner", f"unix:{tmp_path}/outer"
    async with serving(inner, Endless()), rpc.dial(inner) as channel:

        async def choose(method: str, metadata: rpc.Metadata) -> grpc.aio.Channel:
            return channel

        async with serving(outer, relaying(choose)), rpc.dial(outer) as client:
            call = engine_pb2_grpc.ContainerServiceStub(client).AttachContainer()
            await call.read()
            call.cancel()
            await asyncio.wait_for(ended.wait(), 60)


def test_identity_is_kept_whole(tmp_path: Path, authority: Authority) -> None:
    assert tls.Identity.load(tmp_path) is None
    identity = authority.identity("n1", "worker")
    identity.save(tmp_path)
    assert tls.Identity.load(tmp_path) == identity
    assert (tmp_path / "identity.json").stat().st_mode & 0o777 == 0o600
    assert "PRIVATE" not in repr(identity)
    (tmp_path / "identity.json").write_text("{}")
    with pytest.raises(ShoalError, match="cannot be read"):
        tls.Identity.load(tmp_path)
