"""The dispatcher over real mutual TLS: who gets in, what goes down, what comes up, and how a stream ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import msgspec
import pytest

from manager.ca.limiter import Limiter
from manager.ca.rpc import CertificateServicer, JoinServicer
from manager.ca.token import rotated, token_of
from manager.control.action import change, commit
from manager.dispatcher import encode, pace, rpc, sessions
from manager.dispatcher.inventory import Held
from manager.dispatcher.rpc import DispatcherService
from shoal.errors import (
    Conflict,
    DeadlineExceeded,
    Exhausted,
    InvalidArgument,
    PermissionDenied,
    ShoalError,
    Unavailable,
    Unsupported,
)
from shoal.model.base import Meta
from shoal.model.container import ContainerSpec
from shoal.model.node import NodeState, Role
from shoal.model.service import Service, ServiceSpec, TaskSpec
from shoal.model.task import Task, TaskState, TaskStatus
from shoal.rpc import dial, new_server, translated
from shoal.tls import Identity, new_key_and_csr, server_credentials
from shoal.v1 import ca_pb2, ca_pb2_grpc, dispatcher_pb2_grpc, types_pb2
from shoal.v1 import dispatcher_pb2 as wire
from tests.unit.manager.conftest import node

DAY_NS = 24 * 3600 * 10**9


def identity(manager: Any, node_id: str, role: Role = Role.WORKER, cluster_id: str = "c1") -> Identity:
    made: Identity = manager.authority.new_identity(
        node_id=node_id, cluster_id=cluster_id, role=role, life_ns=DAY_NS, now_ns=manager.clock.now_ns()
    )
    return made


@pytest.fixture
async def address(manager: Any) -> AsyncIterator[str]:
    """Where the dispatcher of a running manager listens."""
    service = DispatcherService(
        store=manager.store,
        mirror=manager.mirror,
        clock=manager.clock,
        inventory=manager.inventory,
        location=manager.location,
        channels=manager.channels,
        own_id="m1",
        tenure=manager.tenure,
        leads=lambda: True,
    )
    renewal = CertificateServicer(mirror=manager.mirror, authority=manager.room.authority, clock=manager.clock)
    own = identity(manager, "m1", Role.MANAGER)
    server = new_server()
    dispatcher_pb2_grpc.add_DispatcherServiceServicer_to_server(service, server)
    ca_pb2_grpc.add_CertificateServiceServicer_to_server(renewal, server)
    port = server.add_secure_port("127.0.0.1:0", server_credentials(lambda: own, require_client=True))
    await server.start()
    running = asyncio.create_task(service.run())
    yield f"127.0.0.1:{port}"
    await server.stop(None)
    running.cancel()


class Agent:
    """The other end of a session, by hand."""

    def __init__(self, address: str, own: Identity) -> None:
        self.channel = dial(address, identity=own)
        self.stub = dispatcher_pb2_grpc.DispatcherServiceStub(self.channel)
        self.call: Any = None

    async def hello(self, *images: wire.HeldImage) -> wire.Welcome:
        described = types_pb2.NodeDescription(hostname="one", address="10.9.0.1")
        hello = wire.Hello(description=described, images=wire.ImageInventory(images=images))
        while True:
            self.call = self.stub.Session()
            try:
                with translated():  # a refusal may be there before hello is
                    await self.call.write(wire.SessionRequest(hello=hello))
                welcome: wire.Welcome = (await self.read()).welcome
            except ShoalError as error:
                # gRPC may lose the reason while hello is under way; an agent then hears it at its next try.
                if "Internal error from Core" not in str(error):
                    raise
            else:
                return welcome

    async def read(self) -> wire.SessionResponse:
        async with asyncio.timeout(60):
            with translated():
                response = await self.call.read()
        assert response is not grpc.aio.EOF
        answer: wire.SessionResponse = response
        return answer

    async def assignments(self) -> wire.Assignments:
        found: wire.Assignments = (await self.read()).assignments
        return found

    async def say(self, **fields: Any) -> None:
        await self.call.write(wire.SessionRequest(**fields))


@pytest.fixture
async def agent(manager: Any, address: str) -> AsyncIterator[Agent]:
    made = Agent(address, identity(manager, "w1"))
    yield made
    await made.channel.close()


async def until(holds: Any) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.01)


def task(id: str = "t1", state: TaskState = TaskState.ASSIGNED, version: int = 0) -> Task:
    return Task(Meta(id, version, created_at_ns=1), "s1", 1, 1, "w1", TaskState.RUNNING, TaskStatus(state=state))


SERVICE = Service(Meta("s1"), ServiceSpec(name="web", task=TaskSpec(container=ContainerSpec(image="web:1"))), 1)


async def test_a_session_from_hello_to_goodbye(manager: Any, agent: Agent) -> None:
    await manager.add(SERVICE, task())
    welcome = await agent.hello()
    assert (list(welcome.managers), welcome.role) == (["10.9.0.9:2377"], types_pb2.ROLE_WORKER)
    assert manager.mirror.nodes["w1"].status.state is NodeState.READY
    first = await agent.assignments()
    assert (first.complete, first.sequence) == (True, 1)
    assert [each.WhichOneof("item") for each in first.changes] == ["template", "task"]

    await manager.add(task("t2"))
    second = await agent.assignments()
    assert (second.complete, second.sequence) == (False, 2)
    assert [each.task.task_id for each in second.changes] == ["t2"]

    status = types_pb2.TaskStatus(state=types_pb2.TASK_STATE_RUNNING, pid=7)
    await agent.say(reports=wire.TaskReports(reports=[wire.TaskReport(task_id="t1", status=status)]))
    await until(lambda: manager.mirror.tasks["t1"].status.pid == 7)

    await agent.say(goodbye=wire.Goodbye())
    assert await agent.call.read() is grpc.aio.EOF
    assert manager.mirror.nodes["w1"].status.state is NodeState.DOWN


async def test_a_great_assignment_comes_in_parts(manager: Any, agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "MESSAGE_BYTES", 20_000)
    await manager.add(SERVICE, *(task(f"t{number}") for number in range(1000)))
    await agent.hello()
    parts = [await agent.assignments()]
    while parts[-1].more:
        parts.append(await agent.assignments())
    assert len(parts) > 1
    assert [part.complete for part in parts] == [True, *(False for _ in parts[1:])]
    assert [part.sequence for part in parts] == list(range(1, len(parts) + 1))
    assert all(part.ByteSize() <= 20_100 for part in parts)
    assert sum(len(part.changes) for part in parts) == 1001


async def test_a_newer_session_of_the_node_ends_the_older(agent: Agent, manager: Any, address: str) -> None:
    await agent.hello()
    await agent.assignments()
    newer = Agent(address, identity(manager, "w1"))
    await newer.hello()
    with pytest.raises(Conflict, match="began another session"):
        await agent.read()
    assert (await newer.assignments()).complete
    await newer.channel.close()


async def test_who_holds_an_image_is_known_while_it_is_connected(agent: Agent, manager: Any) -> None:
    digest = "sha256:" + "0f" * 32
    await agent.hello(wire.HeldImage(reference="docker.io/library/web:1", manifest_digest=digest))
    await agent.assignments()
    request = wire.LocateImageRequest(manifest_digest=digest)
    found = (await agent.stub.LocateImage(request)).sources
    assert [(each.node_id, each.address) for each in found] == [("w1", "10.9.0.1:2376")]
    agent.call.cancel()
    await until(lambda: not manager.inventory.locate("", digest))


async def test_an_image_on_nodes_that_cannot_be_asked_may_be_had_later(agent: Agent, manager: Any) -> None:
    await agent.hello()
    manager.inventory.put("w2", [Held("", "sha256:1")])
    await manager.add(node("w2", state=NodeState.UNKNOWN))
    with pytest.raises(Unavailable, match="the nodes that have it are away"), translated():
        await agent.stub.LocateImage(wire.LocateImageRequest(manifest_digest="sha256:1"))


async def test_who_is_not_a_member_does_not_get_in(manager: Any, address: str) -> None:
    for own in (identity(manager, "gone"), identity(manager, "w1", cluster_id="another")):
        stranger = Agent(address, own)
        with pytest.raises(PermissionDenied, match="was removed from the cluster"):
            await stranger.hello()
        await stranger.channel.close()


async def test_a_node_that_is_removed_loses_its_session(agent: Agent, manager: Any) -> None:
    await agent.hello()
    await agent.assignments()
    from manager.control.action import delete

    done = await commit(manager.store, [delete(manager.mirror.nodes["w1"], "test")])
    assert not done.conflicts
    with pytest.raises(PermissionDenied, match="was removed"):
        await agent.read()


async def test_what_an_agent_may_not_say_ends_its_stream(agent: Agent, manager: Any) -> None:
    await manager.add(SERVICE, Task(Meta("other", created_at_ns=1), "s1", 1, 2, "m1", TaskState.RUNNING, TaskStatus()))
    await agent.hello()
    await agent.assignments()
    status = types_pb2.TaskStatus(state=types_pb2.TASK_STATE_RUNNING)
    await agent.say(reports=wire.TaskReports(reports=[wire.TaskReport(task_id="other", status=status)]))
    with pytest.raises(PermissionDenied, match="may not report"):
        await agent.read()


async def test_a_stream_that_does_not_begin_with_hello_is_refused(agent: Agent) -> None:
    agent.call = agent.stub.Session()
    await agent.say(heartbeat=wire.Heartbeat())
    with pytest.raises(InvalidArgument, match="begins with hello"):
        await agent.read()


async def test_a_stream_without_a_word_is_ended(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "HELLO_S", 0.05)
    agent.call = agent.stub.Session()
    with pytest.raises(DeadlineExceeded, match="said nothing"):
        await agent.read()


async def test_a_flood_of_one_node_slows_down_that_node_alone(
    manager: Any, address: str, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc, "REPORTS_BURST", 1000)
    await manager.add(SERVICE, task(), node("w2"), msgspec.structs.replace(task("t2"), node_id="w2"))
    await agent.hello()
    await agent.assignments()
    other = Agent(address, identity(manager, "w2"))
    await other.hello()
    running = types_pb2.TaskStatus(state=types_pb2.TASK_STATE_RUNNING, pid=1)
    thousand = wire.TaskReports(reports=[wire.TaskReport(task_id="t1", status=running)] * 1000)

    async def flood() -> None:
        while True:
            await agent.say(reports=thousand)

    flooding = asyncio.create_task(flood())
    await until(lambda: manager.mirror.tasks["t1"].status.pid == 1)
    for pid in range(10, 15):
        status = types_pb2.TaskStatus(state=types_pb2.TASK_STATE_RUNNING, pid=pid)
        await other.say(reports=wire.TaskReports(reports=[wire.TaskReport(task_id="t2", status=status)]))
        await until(lambda pid=pid: manager.mirror.tasks["t2"].status.pid == pid)
    assert not flooding.done()
    flooding.cancel()
    await other.channel.close()


async def test_more_statuses_at_once_than_an_agent_sends_end_its_stream(agent: Agent) -> None:
    await agent.hello()
    await agent.assignments()
    await agent.say(reports=wire.TaskReports(reports=[wire.TaskReport(task_id="t1")] * 1001))
    with pytest.raises(InvalidArgument, match="reports 1001 statuses at once, 1000 are allowed"):
        await agent.read()


async def test_a_node_opens_so_many_sessions_and_no_more(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "OPENINGS", 3)
    for _ in range(3):
        await agent.hello()
    with pytest.raises(Exhausted, match="more than 3 sessions in a minute"):
        await agent.hello()


async def test_a_description_without_end_is_refused(manager: Any, agent: Agent) -> None:
    agent.call = agent.stub.Session()
    labels = {f"label{number}": "x" * 1000 for number in range(100)}
    described = types_pb2.NodeDescription(hostname="one", engine_labels=labels)
    await agent.say(hello=wire.Hello(description=described))
    with pytest.raises(InvalidArgument, match=r"describes itself in \d+ bytes, 32768 are allowed"):
        await agent.read()
    assert not manager.mirror.nodes["w1"].description.engine_labels


async def test_of_too_many_images_the_first_are_known(
    manager: Any, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc, "IMAGES", 2)
    await agent.hello(*(wire.HeldImage(reference=name, manifest_digest=f"sha256:{name}") for name in "abc"))
    held = [bool(manager.inventory.locate(name, "")) for name in "abc"]
    assert held == [True, True, False]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "STALLED_S", 0.2)


async def test_an_agent_that_does_not_read_is_cut(impatient: None, manager: Any, agent: Agent) -> None:
    long = msgspec.structs.replace(SERVICE.spec, labels={"long": "x" * 900_000})
    for id in "abcdefghij":
        await manager.add(Service(Meta(id), long, 1), msgspec.structs.replace(task(f"t-{id}"), service_id=id))
    agent.call = agent.stub.Session()
    image = wire.HeldImage(reference="a", manifest_digest="sha256:a")
    described = types_pb2.NodeDescription(hostname="one", address="10.9.0.1")
    await agent.say(hello=wire.Hello(description=described, images=wire.ImageInventory(images=[image])))
    await until(lambda: manager.inventory.locate("a", ""))
    # The manager lets go of it, whether it ever reads again or not.
    await until(lambda: not manager.inventory.locate("a", ""))
    with pytest.raises(Unavailable, match="has not read for"):
        while True:
            await agent.read()


async def test_renewal_is_for_members(manager: Any, address: str) -> None:
    key_pem, csr_pem = new_key_and_csr("w1")
    request = ca_pb2.RenewCertificateRequest(csr_pem=csr_pem)
    async with dial(address, identity=identity(manager, "w1")) as channel:
        answer = await ca_pb2_grpc.CertificateServiceStub(channel).RenewCertificate(request)
    fresh = Identity(answer.certificate_pem, key_pem, answer.root_ca_pem)
    assert (fresh.node_id, fresh.role) == ("w1", Role.WORKER)
    async with dial(address, identity=identity(manager, "gone")) as channel:
        with pytest.raises(PermissionDenied, match="not a member"), translated():
            await ca_pb2_grpc.CertificateServiceStub(channel).RenewCertificate(request)


@pytest.fixture
def join(manager: Any) -> JoinServicer:
    return JoinServicer(
        ledger=manager.room.ledger,
        store_kind="sqlite",
        mirror=manager.mirror,
        authority=manager.room.authority,
        seal=manager.seal,
        clock=manager.clock,
        managers=lambda: ["10.9.0.9:2377"],
        limiter=Limiter(burst=3, every_s=1000),
    )


class Context:
    def peer(self) -> str:
        return "ipv4:10.9.0.77:5"


async def test_joining_takes_the_token_of_today(manager: Any, join: JoinServicer) -> None:
    cluster = manager.mirror.cluster
    token = token_of(cluster, Role.WORKER, manager.seal).text
    _, csr_pem = new_key_and_csr("x")
    request = ca_pb2.IssueCertificateRequest(token=token, csr_pem=csr_pem, hostname="n\n9")
    answer = await join.IssueCertificate(request, Context())
    assert manager.mirror.nodes[answer.node_id].description.hostname == "n\\x0a9"
    with pytest.raises(Unsupported, match="one manager"):
        manager_token = token_of(cluster, Role.MANAGER, manager.seal).text
        await join.IssueCertificate(ca_pb2.IssueCertificateRequest(token=manager_token, csr_pem=csr_pem), Context())

    done = await commit(manager.store, [change(rotated(cluster, Role.WORKER, manager.seal), "rotate")])
    await manager.mirror.reached(done.revision)
    for _ in range(3):
        with pytest.raises(PermissionDenied, match="not valid for this cluster"):
            await join.IssueCertificate(request, Context())
    with pytest.raises(Exhausted, match="too many wrong join tokens"):
        await join.IssueCertificate(request, Context())
