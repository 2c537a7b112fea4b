"""What of the calls of a manager gets into the audit record, over real mutual TLS and through a real relay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest

from manager.api.permission import Permission
from manager.api.recorder import Recorder
from manager.audit.chain import HEAD_KEY, PREFIX, key_of
from manager.audit.denials import Denials
from manager.store.base import Put, Txn
from shoal import codec
from shoal.errors import InvalidArgument, NotFound, PermissionDenied
from shoal.forward import Forward
from shoal.model.audit import AuditEntry
from shoal.model.user import UserRole
from shoal.rpc import ENGINE_SERVICES, dial, new_server, translated
from shoal.tls import Identity, server_credentials
from shoal.v1 import control_pb2, control_pb2_grpc, engine_pb2, engine_pb2_grpc, types_pb2
from tests.unit.manager.api.test_permission import SERVICE, control, identity, user
from tests.unit.manager.conftest import Role, node


class Engine(engine_pb2_grpc.ContainerServiceServicer):
    """A node that runs nothing, and knows one container."""

    async def ExecContainer(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        first = await anext(requests)
        if first.open.container != "web":
            raise NotFound(f"No such container: {first.open.container}")
        yield engine_pb2.ExecContainerResponse(stdout=b"hello")

    async def ListContainers(self, request: Any, context: Any) -> Any:
        return engine_pb2.ListContainersResponse()


@pytest.fixture
async def address(manager: Any) -> AsyncIterator[str]:
    """Of the port for members of the cluster, with the engine of another node behind it."""
    engine = new_server()
    engine_pb2_grpc.add_ContainerServiceServicer_to_server(Engine(), engine)
    engine_port = engine.add_insecure_port("127.0.0.1:0")
    await engine.start()
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{engine_port}")

    async def choose(_method: str, _metadata: Any) -> grpc.aio.Channel:
        return channel

    denials = Denials(manager.room.ledger, manager.clock)
    recorder = Recorder(manager.room.ledger, denials, manager.mirror, "m1")
    server = new_server(interceptors=(recorder, Permission(manager.mirror, manager.clock).gate()))
    control_pb2_grpc.add_ControlServiceServicer_to_server(manager.control, server)
    relay = Forward(ENGINE_SERVICES, choose, whom=lambda metadata: "the node", around=recorder.relayed)
    server.add_generic_rpc_handlers((relay,))
    own = identity(manager, "m1", Role.MANAGER)
    port = server.add_secure_port("127.0.0.1:0", server_credentials(lambda: own, require_client=True))
    await server.start()
    writing = asyncio.create_task(denials.run())
    yield f"127.0.0.1:{port}"
    writing.cancel()
    await channel.close()
    await server.stop(None)
    await engine.stop(None)


async def lines(manager: Any, **filters: Any) -> list[Any]:
    request = control_pb2.ReadAuditRequest(**filters)
    return [entry async for part in manager.control.ReadAudit(request, None) for entry in part.entries]


def told(entry: Any) -> tuple[str, ...]:
    return (entry.actor, entry.verb, entry.object, entry.decision, entry.outcome)


async def test_a_change_is_told_with_who_what_and_from_where(manager: Any, address: str) -> None:
    async with control(address, await user(manager, "ann", UserRole.DEPLOYER)) as stub:
        made = (await stub.CreateService(control_pb2.CreateServiceRequest(spec=SERVICE))).service
        await stub.RemoveService(control_pb2.RemoveServiceRequest(service="web"))
    created, removed = await lines(manager, user="ann")
    what = f"service {made.meta.id} web"
    assert told(created) == ("user ann", "service create", what, "allowed", "done")
    assert told(removed) == ("user ann", "service rm", what, "allowed", "done")
    assert created.source == "127.0.0.1"
    assert (await lines(manager))[0].object == "user ann (deployer)"


async def test_a_change_that_could_not_be_made_leaves_no_line(manager: Any, address: str) -> None:
    async with control(address, await user(manager, "ann", UserRole.OPERATOR)) as stub:
        with pytest.raises(NotFound), translated():
            await stub.RemoveNode(control_pb2.RemoveNodeRequest(node="none"))
    assert not await lines(manager, user="ann")


async def test_nodes_and_local_root_have_names_too(manager: Any, address: str) -> None:
    await manager.add(node("m2", Role.MANAGER))
    async with control(address, identity(manager, "m2", Role.MANAGER)) as stub:
        await stub.CreateService(control_pb2.CreateServiceRequest(spec=SERVICE))
    assert [entry.actor for entry in await lines(manager, verb="service create")] == ["node host-m2 (m2)"]


async def test_a_refusal_is_told_with_its_reason(manager: Any, address: str) -> None:
    async with control(address, await user(manager, "ann", UserRole.VIEWER)) as stub:
        for _ in range(3):
            with pytest.raises(PermissionDenied), translated():
                await stub.RemoveNode(control_pb2.RemoveNodeRequest(node="w1"))
    async with asyncio.timeout(60):
        while not (found := await lines(manager, denied=True)):
            await asyncio.sleep(0.05)
    assert told(found[0]) == (
        "user ann",
        "node rm",
        "",
        "denied",
        "'node rm' needs the role operator, and user ann is viewer",
    )


async def run(address: str, own: Identity, container: str) -> None:
    opened = engine_pb2.ExecOpen(container=container, argv=["mysql", "-psecret"], env=["TOKEN=secret"])
    async with dial(address, identity=own) as channel:
        call = engine_pb2_grpc.ContainerServiceStub(channel).ExecContainer(metadata=(("shoal-node", "w1"),))
        with translated():
            await call.write(engine_pb2.ExecContainerRequest(open=opened))
            while await call.read() is not grpc.aio.EOF:
                pass
            if await call.code() is not grpc.StatusCode.OK:
                raise NotFound(await call.details())


async def test_what_is_done_on_a_nodes_engine_is_told_before_it_begins_and_when_it_fails(
    manager: Any, address: str
) -> None:
    own = await user(manager, "ann", UserRole.OPERATOR)
    await run(address, own, "web")
    with pytest.raises(NotFound, match="No such container: db"):
        await run(address, own, "db")
    async with dial(address, identity=own) as channel:
        await engine_pb2_grpc.ContainerServiceStub(channel).ListContainers(
            engine_pb2.ListContainersRequest(), metadata=(("shoal-node", "w1"),)
        )
    assert [told(entry)[1:] for entry in await lines(manager, user="ann")] == [
        ("container exec", "web on node w1", "allowed", "begun"),
        ("container exec", "db on node w1", "allowed", "begun"),
        ("container exec", "db on node w1", "allowed", "failed: NOT_FOUND"),
    ]
    stored = b"".join(record.value for record in (await manager.store.read(PREFIX)).records)
    assert b"secret" not in stored


async def test_a_token_that_was_looked_at_is_told(manager: Any, address: str) -> None:
    async with control(address, await user(manager, "ann", UserRole.OPERATOR)) as stub:
        await stub.GetJoinToken(control_pb2.GetJoinTokenRequest(role=types_pb2.ROLE_WORKER))
        made = await stub.CreateJoinToken(control_pb2.CreateJoinTokenRequest(role=types_pb2.ROLE_WORKER, uses=1))
    looked, created = await lines(manager, user="ann")
    assert told(looked)[1:3] == ("join-token", "token of workers")
    assert created.object == f"token {made.token.token.meta.id} (worker)"
    secret = made.text.rpartition("-")[2].encode()
    assert secret not in b"".join(record.value for record in (await manager.store.read("/")).records)


async def test_lines_are_found_by_time_verb_and_number(manager: Any) -> None:
    for number in range(3):
        await manager.control.CreateService(
            control_pb2.CreateServiceRequest(spec=types_pb2.ServiceSpec(name=f"s{number}", task=SERVICE.task)), None
        )
    everything = await lines(manager)
    assert [entry.number for entry in everything] == [1, 2, 3]
    assert [entry.number for entry in await lines(manager, last=2)] == [2, 3]
    assert [entry.number for entry in await lines(manager, since_ns=everything[1].at_ns)] == [2, 3]
    assert [entry.number for entry in await lines(manager, until_ns=everything[1].at_ns)] == [1]
    assert not await lines(manager, verb="node")


async def test_the_record_is_verified_as_the_store_has_it(manager: Any) -> None:
    async def verified(known: str = "") -> control_pb2.VerifyAuditResponse:
        request = control_pb2.VerifyAuditRequest(known=known)
        answer: control_pb2.VerifyAuditResponse = await manager.control.VerifyAudit(request, None)
        return answer

    assert (await verified()).head == "0:"
    for name in ("one", "two", "three"):
        await user(manager, name, UserRole.VIEWER)
    whole = await verified()
    assert (whole.lines, list(whole.faults)) == (3, [])
    assert not (await verified(whole.head)).faults
    with pytest.raises(InvalidArgument, match="give NUMBER:HASH"):
        await verified("3")

    (second,) = (await manager.store.read(key_of(2))).records
    forged = codec.pack(AuditEntry(2, actor="user ben", previous=codec.unpack(AuditEntry, second.value).previous))
    await manager.store.txn(Txn(puts=(Put(key_of(2), forged),)))
    assert list((await verified()).faults) == [
        "line 3 does not follow from line 2 as it is now: that one was altered, or this one"
    ]
    await manager.store.txn(Txn(deletes=(HEAD_KEY,)))
    with pytest.raises(InvalidArgument, match="head of the audit record is missing"):
        await verified()
