"""Who may call what, over a real unix socket and real mutual TLS."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from agent.api.server import serve_local, serve_peers
from agent.api.swarm import SwarmService
from agent.api.system import System, SystemService
from agent.chronicle import Chronicle
from agent.database import Database
from agent.registry import rules
from agent.standing import Founded, Said, Standing, State
from agent.trust import Doorkeeper
from shoal.access import Call
from shoal.clock import SystemClock
from shoal.errors import Conflict, PermissionDenied, ShoalError, Unavailable
from shoal.forward import Forward
from shoal.model.base import Meta
from shoal.model.container import Container, ContainerState, ContainerStatus
from shoal.model.node import Availability, Role
from shoal.model.trust import Revocation, Trust
from shoal.rpc import dial, translated
from shoal.settings import Paths
from shoal.tls import Identity, node_name
from shoal.v1 import (
    blob_pb2,
    blob_pb2_grpc,
    control_pb2,
    control_pb2_grpc,
    engine_pb2,
    engine_pb2_grpc,
    swarm_pb2,
    swarm_pb2_grpc,
    types_pb2,
)
from tests.unit.agent.conftest import Authority


class Blobs(blob_pb2_grpc.BlobServiceServicer):
    async def ReadBlob(self, request: blob_pb2.ReadBlobRequest, context: Any) -> AsyncIterator[Any]:
        yield blob_pb2.ReadBlobResponse(size_bytes=1, chunk=b"x")


class EndlessBlobs(blob_pb2_grpc.BlobServiceServicer):
    """A blob that does not end, in chunks that fill the connection."""

    async def ReadBlob(self, request: blob_pb2.ReadBlobRequest, context: Any) -> AsyncIterator[Any]:
        while True:
            yield blob_pb2.ReadBlobResponse(chunk=b"x" * (1 << 20))


class Logs(engine_pb2_grpc.ContainerServiceServicer):
    async def ReadLogs(self, request: engine_pb2.ReadLogsRequest, context: Any) -> AsyncIterator[Any]:
        yield engine_pb2.ReadLogsResponse()

    async def AttachContainer(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        async for _ in requests:
            yield engine_pb2.AttachContainerResponse(ready=True)


class Membership:
    """A member that notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def standing(self) -> Standing:
        return Standing(State.ACTIVE, "node1", "cluster1", Role.WORKER, "", ("10.0.0.1:2377",), "10.0.0.2")

    async def manager_says(self) -> Said:
        return Said()

    async def init(self, **wanted: Any) -> Founded:
        self.asked.append(wanted)
        return Founded("node1", "SHTKN", "10.0.0.2:2377")

    async def join(self, **wanted: Any) -> Standing:
        self.asked.append(wanted)
        return self.standing()

    async def leave(self, *, force: bool) -> None:
        if not force:
            raise Conflict("You are attempting to leave the swarm", hint="use --force")


class Containers:
    async def list(self, *, all: bool = False) -> list[Container]:
        return [Container(), Container(status=ContainerStatus(state=ContainerState.RUNNING))]


class Images:
    async def list(self) -> list[Any]:
        return []


class Usage:
    async def measured(self) -> engine_pb2.GetDiskUsageResponse:
        return engine_pb2.GetDiskUsageResponse()


@pytest.fixture
def membership() -> Membership:
    return Membership()


@pytest.fixture
def system(tmp_path: Path, membership: Membership) -> SystemService:
    told = rules.read(["near:5001", "10.0.0.0/8"], ["http://near:5000", "quay.io=https://m.example"], tmp_path)
    chronicle = Chronicle(SystemClock())
    return SystemService(
        System(Paths(tmp_path, tmp_path), Containers(), Images(), membership, chronicle, Usage(), rules=told)
    )


@pytest.fixture
def blobs() -> blob_pb2_grpc.BlobServiceServicer:
    return Blobs()


@pytest.fixture
async def doorkeeper(tmp_path: Path) -> AsyncIterator[Doorkeeper]:
    database = await Database.open(tmp_path / "agent.db", boot="boot")
    yield Doorkeeper(database, SystemClock())
    await database.close()


@pytest.fixture
async def address(
    authority: Authority, system: SystemService, doorkeeper: Doorkeeper, blobs: blob_pb2_grpc.BlobServiceServicer
) -> AsyncIterator[str]:
    """Of the server for other hosts."""
    identity = authority.identity("node1")
    bound = []

    def note(server: grpc.aio.Server) -> None:
        engine_pb2_grpc.add_SystemServiceServicer_to_server(system, server)
        engine_pb2_grpc.add_ContainerServiceServicer_to_server(Logs(), server)
        blob_pb2_grpc.add_BlobServiceServicer_to_server(blobs, server)
        # The port that the test dials, since the one of the server is fixed before it starts.
        from shoal.tls import server_credentials

        bound.append(server.add_secure_port("127.0.0.1:0", server_credentials(lambda: identity, require_client=True)))

    server = await serve_peers("127.0.0.1:0", lambda: identity, [note], doorkeeper)
    yield f"127.0.0.1:{bound[0]}"
    await server.stop(None)


def call(address: str, identity: Identity) -> grpc.aio.Channel:
    return dial(address, identity=identity, server_name=node_name("node1"))


async def test_any_member_reads_blobs(address: str, authority: Authority) -> None:
    async with call(address, authority.identity("node2")) as channel:
        answers = [a async for a in blob_pb2_grpc.BlobServiceStub(channel).ReadBlob(blob_pb2.ReadBlobRequest())]
    assert answers[0].chunk == b"x"


async def test_only_managers_use_the_engine(address: str, authority: Authority) -> None:
    async with call(address, authority.identity("node3", "manager")) as channel:
        info = await engine_pb2_grpc.SystemServiceStub(channel).GetInfo(engine_pb2.GetInfoRequest())
        logs = engine_pb2_grpc.ContainerServiceStub(channel).ReadLogs(engine_pb2.ReadLogsRequest())
        assert len([answer async for answer in logs]) == 1
    assert info.containers == 2


async def test_a_worker_is_refused_the_engine(address: str, authority: Authority) -> None:
    async with call(address, authority.identity("node2")) as channel:
        with pytest.raises(PermissionDenied, match="node node2 is a worker"), translated():
            await engine_pb2_grpc.SystemServiceStub(channel).GetInfo(engine_pb2.GetInfoRequest())
        containers = engine_pb2_grpc.ContainerServiceStub(channel)
        with pytest.raises(PermissionDenied), translated():
            async for _ in containers.ReadLogs(engine_pb2.ReadLogsRequest()):
                pass
        with pytest.raises(PermissionDenied), translated():
            async for _ in containers.AttachContainer(iter([engine_pb2.AttachContainerRequest()])):
                pass


async def test_users_are_for_managers_to_know(address: str, authority: Authority) -> None:
    async with call(address, authority.identity("ann", "user")) as channel:
        with pytest.raises(PermissionDenied, match="is for nodes of its swarm"), translated():
            await blob_pb2_grpc.BlobServiceStub(channel).ReadBlob(blob_pb2.ReadBlobRequest()).read()
        with pytest.raises(PermissionDenied, match="is for nodes of its swarm"), translated():
            await engine_pb2_grpc.SystemServiceStub(channel).GetInfo(engine_pb2.GetInfoRequest())


def removed(node_id: str, *, for_s: int = 3600) -> Trust:
    until_ns = SystemClock().now_ns() + for_s * 10**9
    return Trust(("node3",), (Revocation(Meta(id=node_id), until_ns),))


async def test_who_is_a_manager_is_the_managers_word_not_an_old_certificates(
    address: str, authority: Authority, doorkeeper: Doorkeeper
) -> None:
    await doorkeeper.learn(Trust(("node3",)))
    async with call(address, authority.identity("node3", "manager")) as channel:
        await engine_pb2_grpc.SystemServiceStub(channel).GetInfo(engine_pb2.GetInfoRequest())
    async with call(address, authority.identity("node4", "manager")) as channel:
        with pytest.raises(PermissionDenied, match="node node4 is a worker"), translated():
            await engine_pb2_grpc.SystemServiceStub(channel).GetInfo(engine_pb2.GetInfoRequest())


async def test_an_attach_through_a_manager_that_is_none_any_more_is_cut(
    address: str, authority: Authority, doorkeeper: Doorkeeper
) -> None:
    async with call(address, authority.identity("node4", "manager")) as channel:
        attached = engine_pb2_grpc.ContainerServiceStub(channel).AttachContainer()
        await attached.write(engine_pb2.AttachContainerRequest())
        await attached.read()
        await doorkeeper.learn(Trust(("node3",)))
        with pytest.raises(PermissionDenied, match="node node4 is a worker"), translated():
            async with asyncio.timeout(60):
                while await attached.read() is not grpc.aio.EOF:
                    pass
                raise AssertionError(await attached.code())


@pytest.mark.parametrize("blobs", [EndlessBlobs()])
async def test_a_removed_nodes_transfers_are_cut_and_it_starts_no_other(
    address: str, authority: Authority, doorkeeper: Doorkeeper
) -> None:
    async with call(address, authority.identity("node2")) as channel:
        stub = blob_pb2_grpc.BlobServiceStub(channel)
        transfer = stub.ReadBlob(blob_pb2.ReadBlobRequest())
        await transfer.read()
        await doorkeeper.learn(removed("node2"))
        with pytest.raises(ShoalError), translated():
            async with asyncio.timeout(60):
                while await transfer.read() is not grpc.aio.EOF:
                    pass
                raise AssertionError(await transfer.code())
        with pytest.raises(PermissionDenied, match="node node2 was removed"), translated():
            await stub.ReadBlob(blob_pb2.ReadBlobRequest()).read()


async def test_what_was_known_of_removed_nodes_survives_the_agent(
    authority: Authority, doorkeeper: Doorkeeper, tmp_path: Path
) -> None:
    await doorkeeper.learn(removed("node2"))
    database = await Database.open(tmp_path / "agent.db", boot="boot")
    again = Doorkeeper(database, SystemClock())
    await again.restore()
    await database.close()
    read = "/shoal.v1.BlobService/ReadBlob"
    with pytest.raises(PermissionDenied, match="was removed"):
        again.check(Call(read, authority.identity("node2").peer, "ipv4:10.0.0.2:5"))
    again.check(Call(read, authority.identity("node5").peer, "ipv4:10.0.0.5:5"))


async def test_a_stranger_is_refused_by_tls(address: str, authority: Authority) -> None:
    stranger = Authority().identity("node3", "manager")
    trusting = Identity(stranger.certificate_pem, stranger.key_pem, authority.root_pem)
    async with call(address, trusting) as channel:
        with pytest.raises(Unavailable), translated():
            await engine_pb2_grpc.SystemServiceStub(channel).GetInfo(engine_pb2.GetInfoRequest(), timeout=5)


@pytest.fixture
async def local(tmp_path: Path, system: SystemService, membership: Membership) -> AsyncIterator[grpc.aio.Channel]:
    """A client on the agent's own socket, on a host without a manager."""

    async def nowhere(_method: str, _metadata: Any) -> grpc.aio.Channel:
        raise Unavailable("This node is not a swarm manager.")

    path = tmp_path / "run" / "shoal.sock"
    path.parent.mkdir()
    path.touch()
    swarm = SwarmService(membership)
    services = [
        lambda server: engine_pb2_grpc.add_SystemServiceServicer_to_server(system, server),
        lambda server: swarm_pb2_grpc.add_SwarmServiceServicer_to_server(swarm, server),
    ]
    server = await serve_local(
        path, services, Forward(("shoal.v1.ControlService",), nowhere, whom=lambda metadata: "the manager")
    )
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    async with dial(f"unix:{path}") as channel:
        yield channel
    await server.stop(None)


async def test_info_tells_of_host_and_swarm(local: grpc.aio.Channel, tmp_path: Path) -> None:
    info = await engine_pb2_grpc.SystemServiceStub(local).GetInfo(engine_pb2.GetInfoRequest())
    assert (info.containers, info.running, info.images) == (2, 1, 0)
    assert info.data_dir == str(tmp_path)
    assert info.cgroup_version in (1, 2)
    assert info.insecure_registries == ["near:5000", "near:5001", "10.0.0.0/8", "127.0.0.0/8", "::1/128"]
    assert info.registry_mirrors == ["http://near:5000", "quay.io=https://m.example"]
    assert (info.swarm.state, info.swarm.role, info.swarm.address) == ("active", types_pb2.ROLE_WORKER, "10.0.0.2")


async def test_control_on_a_host_without_a_manager_says_so(local: grpc.aio.Channel) -> None:
    with pytest.raises(Unavailable, match="not a swarm manager"), translated():
        await control_pb2_grpc.ControlServiceStub(local).ListNodes(control_pb2.ListNodesRequest())


async def test_swarm_requests_become_values(local: grpc.aio.Channel, membership: Membership) -> None:
    stub = swarm_pb2_grpc.SwarmServiceStub(local)
    await stub.InitSwarm(
        swarm_pb2.InitSwarmRequest(
            availability=types_pb2.AVAILABILITY_DRAIN, spec=types_pb2.ClusterSpec(task_history=2)
        )
    )
    joined = await stub.JoinSwarm(swarm_pb2.JoinSwarmRequest(token="t", managers=["a:2377"]))
    assert joined.node_id == "node1"
    init, join = membership.asked
    assert (init["availability"], init["spec"].task_history) == (Availability.DRAIN, 2)
    assert join == {"token": "t", "managers": ("a:2377",), "advertise": "", "availability": Availability.ACTIVE}
    with pytest.raises(Conflict, match="use --force"), translated():
        await stub.LeaveSwarm(swarm_pb2.LeaveSwarmRequest())
    await stub.LeaveSwarm(swarm_pb2.LeaveSwarmRequest(force=True))
