"""What the agent's tests share: a certificate authority, identities of nodes, and a manager's end of the wire."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
import trustme

from agent.certificate import Credentials
from shoal.rpc import new_server
from shoal.tls import Identity, peer_of, server_credentials
from shoal.v1 import ca_pb2, ca_pb2_grpc, dispatcher_pb2, dispatcher_pb2_grpc
from tests.unit.agent.party import Agent, Connect

CLUSTER = "cluster1"
DEADLINE_S = 60.0


class Authority:
    """Issues what the cluster's CA would."""

    def __init__(self) -> None:
        self.ca = trustme.CA(organization_name="shoal-test")
        self.root_pem = self.ca.cert_pem.bytes().decode()

    def identity(self, node_id: str, role: str = "worker", **validity: datetime.datetime) -> Identity:
        names = [f"{node_id}.node.shoal", *(["manager.shoal"] if role == "manager" else [])]
        leaf = self.ca.issue_cert(
            *names, common_name=node_id, organization_name=CLUSTER, organization_unit_name=role, **validity
        )
        chain = b"".join(pem.bytes() for pem in leaf.cert_chain_pems).decode() + self.root_pem
        return Identity(chain, leaf.private_key_pem.bytes().decode(), self.root_pem)


class Stream:
    """One session, from the manager's side."""

    def __init__(self, node_id: str) -> None:
        self.node_id = node_id
        self.received: asyncio.Queue[dispatcher_pb2.SessionRequest] = asyncio.Queue()
        self.to_send: asyncio.Queue[dispatcher_pb2.SessionResponse | None] = asyncio.Queue()
        self.over = asyncio.Event()

    async def next(self, kind: str) -> Any:
        """The next message of that kind; others are passed over."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                request = await self.received.get()
                if request.WhichOneof("request") == kind:
                    return getattr(request, kind)

    async def assign(self, *changes: dispatcher_pb2.AssignmentChange, sequence: int, complete: bool = False) -> None:
        message = dispatcher_pb2.Assignments(complete=complete, sequence=sequence, changes=changes)
        await self.to_send.put(dispatcher_pb2.SessionResponse(assignments=message))

    async def end(self) -> None:
        await self.to_send.put(None)


class Manager(dispatcher_pb2_grpc.DispatcherServiceServicer, ca_pb2_grpc.CertificateServiceServicer):
    """A dispatcher that does what a test says, over real mutual TLS on loopback."""

    def __init__(self, authority: Authority, *, heartbeat_ns: int = 50_000_000) -> None:
        self.authority = authority
        self.heartbeat_ns = heartbeat_ns
        self.streams: asyncio.Queue[Stream] = asyncio.Queue()
        self.named: list[str] = []
        self.sources: list[dispatcher_pb2.ImageSource] = []
        self.address = ""
        # How many called, and whether they are let in.
        self.calls = 0
        self.welcoming = asyncio.Event()
        self.welcoming.set()
        # Somebody waits for a task to be withdrawn, which here never is.
        self.withdrawing = asyncio.Event()
        self._server: grpc.aio.Server | None = None

    async def start(self, port: int = 0) -> str:
        identity = self.authority.identity("manager1", "manager")
        self._server = new_server()
        dispatcher_pb2_grpc.add_DispatcherServiceServicer_to_server(self, self._server)
        ca_pb2_grpc.add_CertificateServiceServicer_to_server(self, self._server)
        bound = self._server.add_secure_port(
            f"127.0.0.1:{port}", server_credentials(lambda: identity, require_client=True)
        )
        await self._server.start()
        self.address = f"127.0.0.1:{bound}"
        return self.address

    async def stop(self) -> None:
        """Gone at once, as if killed."""
        if self._server is not None:
            await self._server.stop(None)

    async def session(self) -> Stream:
        """The next session that an agent opens."""
        async with asyncio.timeout(DEADLINE_S):
            return await self.streams.get()

    async def Session(
        self, requests: AsyncIterator[dispatcher_pb2.SessionRequest], context: Any
    ) -> AsyncIterator[dispatcher_pb2.SessionResponse]:
        peer = peer_of(context)
        assert peer is not None
        stream = Stream(peer.node_id)
        self.calls += 1
        await self.welcoming.wait()
        yield dispatcher_pb2.SessionResponse(
            welcome=dispatcher_pb2.Welcome(
                session_id="s", heartbeat_ns=self.heartbeat_ns, managers=self.named or [self.address]
            )
        )
        hearing = asyncio.create_task(self._hear(requests, stream))
        await self.streams.put(stream)
        try:
            while (response := await stream.to_send.get()) is not None:
                yield response
        finally:
            hearing.cancel()
            stream.over.set()

    async def _hear(self, requests: AsyncIterator[dispatcher_pb2.SessionRequest], stream: Stream) -> None:
        async for request in requests:
            await stream.received.put(request)
        await stream.end()

    async def LocateImage(
        self, request: dispatcher_pb2.LocateImageRequest, context: Any
    ) -> dispatcher_pb2.LocateImageResponse:
        return dispatcher_pb2.LocateImageResponse(sources=self.sources)

    async def AwaitWithdrawal(
        self, request: dispatcher_pb2.AwaitWithdrawalRequest, context: Any
    ) -> dispatcher_pb2.AwaitWithdrawalResponse:
        self.withdrawing.set()
        await asyncio.Event().wait()
        return dispatcher_pb2.AwaitWithdrawalResponse()

    async def RenewCertificate(
        self, request: ca_pb2.RenewCertificateRequest, context: Any
    ) -> ca_pb2.RenewCertificateResponse:
        peer = peer_of(context)
        assert peer is not None
        return ca_pb2.RenewCertificateResponse(certificate_pem=sign(self.authority, request.csr_pem, peer.node_id))


def sign(authority: Authority, csr_pem: str, node_id: str, role: str = "worker") -> str:
    """A certificate over the key in a signing request, leaf first, root last."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.x509.oid import NameOID

    csr = x509.load_pem_x509_csr(csr_pem.encode())
    issuer = x509.load_pem_x509_certificate(authority.root_pem.encode())
    key = serialization.load_pem_private_key(authority.ca.private_key_pem.bytes(), None)
    now = datetime.datetime.now(datetime.UTC)
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, node_id),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, CLUSTER),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role),
        ]
    )
    leaf = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject)
        .public_key(csr.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=24))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(f"{node_id}.node.shoal")]), critical=False)
        .sign(key, hashes.SHA256())  # type: ignore[arg-type]
    )
    return leaf.public_bytes(serialization.Encoding.PEM).decode() + authority.root_pem


async def eventually(question: Callable[[], Any], *, seconds: float = DEADLINE_S) -> Any:
    """The first true answer, asked whenever the loop has been round; fails after the deadline."""
    async with asyncio.timeout(seconds):
        while not (answer := question()):
            await asyncio.sleep(0.005)
        return answer


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
async def manager(authority: Authority) -> AsyncIterator[Manager]:
    manager = Manager(authority)
    await manager.start()
    yield manager
    await manager.stop()


@pytest.fixture
async def connect(authority: Authority, manager: Manager, tmp_path: Path) -> AsyncIterator[Connect]:
    """Starts an agent's session to these managers."""
    tasks = []

    def start(*managers: str) -> Agent:
        credentials = Credentials(tmp_path / "identity", authority.identity("node1"))
        agent = Agent(credentials, managers or (manager.address,))
        tasks.extend([asyncio.create_task(agent.reporter.run()), asyncio.create_task(agent.session.run())])
        return agent

    yield start
    for each in tasks:
        if each.done():
            each.result()
        each.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await each
