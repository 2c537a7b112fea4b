"""Who may call what on a manager, over real mutual TLS, and for how long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import pytest

from manager.api.permission import Permission
from manager.ca.rpc import CertificateServicer
from manager.control.action import change, commit, touched
from shoal.access import Call
from shoal.clock import ManualClock
from shoal.errors import Conflict, InvalidArgument, PermissionDenied
from shoal.model.base import Meta
from shoal.model.container import ContainerSpec
from shoal.model.node import NodeSpec, Role
from shoal.model.service import Service, ServiceSpec, TaskSpec
from shoal.model.user import UserRole
from shoal.rpc import dial, new_server, translated
from shoal.tls import Identity, UserPeer, new_key_and_csr, server_credentials
from shoal.v1 import ca_pb2, ca_pb2_grpc, control_pb2, control_pb2_grpc, types_pb2
from tests.unit.manager.conftest import NOW, node

DAY_NS = 24 * 3600 * 10**9


def identity(manager: Any, node_id: str, role: Role = Role.WORKER, cluster_id: str = "c1") -> Identity:
    made: Identity = manager.authority.new_identity(
        node_id=node_id, cluster_id=cluster_id, role=role, life_ns=DAY_NS, now_ns=manager.clock.now_ns()
    )
    return made


@pytest.fixture
async def address(manager: Any) -> AsyncIterator[str]:
    """Of the port for members of the cluster, with a second manager m2 among them."""
    await manager.add(node("m2", Role.MANAGER))
    gate = Permission(manager.mirror, manager.clock).gate()
    server = new_server(interceptors=(gate,))
    renewal = CertificateServicer(mirror=manager.mirror, authority=manager.room.authority, clock=manager.clock)
    ca_pb2_grpc.add_CertificateServiceServicer_to_server(renewal, server)
    control_pb2_grpc.add_ControlServiceServicer_to_server(manager.control, server)
    own = identity(manager, "m1", Role.MANAGER)
    port = server.add_secure_port("127.0.0.1:0", server_credentials(lambda: own, require_client=True))
    await server.start()
    watching = asyncio.create_task(gate.run())
    yield f"127.0.0.1:{port}"
    watching.cancel()
    await server.stop(None)


async def user(manager: Any, name: str, role: UserRole, *, life_ns: int = DAY_NS) -> Identity:
    """A user's files, as `user create` makes them."""
    key_pem, csr_pem = new_key_and_csr(name)
    request = control_pb2.CreateUserRequest(name=name, role=role.value, life_ns=life_ns, csr_pem=csr_pem)
    answer = await manager.control.CreateUser(request, None)
    return Identity(answer.certificate_pem, key_pem, answer.root_ca_pem)


@asynccontextmanager
async def control(address: str, own: Identity) -> AsyncIterator[control_pb2_grpc.ControlServiceAsyncStub]:
    async with dial(address, identity=own) as channel:
        with translated():
            yield control_pb2_grpc.ControlServiceStub(channel)


SERVICE = types_pb2.ServiceSpec(
    name="web", task=types_pb2.TaskSpec(container=types_pb2.ContainerSpec(image="web:1")), replicas=1
)


async def nodes(address: str, own: Identity) -> int:
    """How many nodes the manager lists."""
    async with dial(address, identity=own) as channel:
        with translated():
            listed = await control_pb2_grpc.ControlServiceStub(channel).ListNodes(control_pb2.ListNodesRequest())
    return len(listed.nodes)


async def test_another_managers_node_may_do_everything_and_a_worker_renew_itself(manager: Any, address: str) -> None:
    assert await nodes(address, identity(manager, "m2", Role.MANAGER)) == 3
    worker = identity(manager, "w1")
    with pytest.raises(PermissionDenied, match="ListNodes of a manager is for managers of its swarm"):
        await nodes(address, worker)
    async with dial(address, identity=worker) as channel:
        request = ca_pb2.RenewCertificateRequest(csr_pem=new_key_and_csr("w1")[1])
        assert await ca_pb2_grpc.CertificateServiceStub(channel).RenewCertificate(request)


async def test_a_certificate_that_still_says_manager_is_not_enough(manager: Any, address: str) -> None:
    own = identity(manager, "m2", Role.MANAGER)
    demoted = touched(manager.mirror.nodes["m2"], NOW, spec=NodeSpec(Role.WORKER))
    done = await commit(manager.store, [change(demoted, "test")])
    await manager.mirror.reached(done.revision)
    with pytest.raises(PermissionDenied, match="this node is a worker"):
        await nodes(address, own)


async def test_a_removed_nodes_certificate_opens_nothing(manager: Any, address: str) -> None:
    for gone in (identity(manager, "w9"), identity(manager, "m9", Role.MANAGER)):
        with pytest.raises(PermissionDenied, match=f"node {gone.node_id} was removed from the cluster"):
            await nodes(address, gone)
    with pytest.raises(PermissionDenied, match="was removed"):
        await nodes(address, identity(manager, "m2", Role.MANAGER, cluster_id="another"))


async def test_a_stream_of_a_node_that_is_removed_ends_within_seconds(manager: Any, address: str) -> None:
    await manager.add(Service(Meta("s1"), ServiceSpec("web", task=TaskSpec(ContainerSpec("web:1"))), 1))
    async with dial(address, identity=identity(manager, "m2", Role.MANAGER)) as channel:
        stub = control_pb2_grpc.ControlServiceStub(channel)
        watched = stub.WatchService(control_pb2.WatchServiceRequest(service="web"))
        await watched.read()
        demoted = touched(manager.mirror.nodes["m2"], NOW, spec=NodeSpec(Role.WORKER))
        done = await commit(manager.store, [change(demoted, "test")])
        await manager.mirror.reached(done.revision)
        await manager.control.RemoveNode(control_pb2.RemoveNodeRequest(node="m2", force=True), None)
        with pytest.raises(PermissionDenied, match=r"m2 was removed|is a worker"), translated():
            async with asyncio.timeout(60):
                while await watched.read() is not grpc.aio.EOF:
                    pass
                raise AssertionError(await watched.code())
    assert manager.mirror.revocations["m2"].until_ns > manager.clock.now_ns() + DAY_NS


async def test_a_viewer_looks_and_is_told_what_more_would_take(manager: Any, address: str) -> None:
    async with control(address, await user(manager, "ann", UserRole.VIEWER)) as stub:
        assert (await stub.ListNodes(control_pb2.ListNodesRequest())).nodes
        with (
            pytest.raises(
                PermissionDenied, match="'service create' needs the role deployer, and user ann is viewer"
            ) as refused,
            translated(),
        ):
            await stub.CreateService(control_pb2.CreateServiceRequest(spec=SERVICE))
    assert refused.value.hint == "an admin can change that: shoal swarm user update --role deployer ann"
    assert not manager.mirror.services


def wanting(**fields: object) -> types_pb2.TaskSpec:
    return types_pb2.TaskSpec(container=types_pb2.ContainerSpec(**fields))  # type: ignore[arg-type]


async def test_a_deployer_deploys_and_takes_nothing_of_the_hosts(manager: Any, address: str) -> None:
    async with control(address, await user(manager, "ann", UserRole.DEPLOYER)) as stub:
        await stub.CreateService(control_pb2.CreateServiceRequest(spec=SERVICE))
        for task in (
            wanting(mounts=[types_pb2.Mount(type=types_pb2.MOUNT_TYPE_BIND, source="/", target="/host")]),
            wanting(cap_add=["SYS_ADMIN"]),
            wanting(devices=[types_pb2.DeviceMapping(source="/dev/kmsg")]),
            wanting(pid_mode="host"),
            types_pb2.TaskSpec(networks=[types_pb2.NetworkAttachment(network="host")]),
        ):
            more = types_pb2.ServiceSpec()
            more.CopyFrom(SERVICE)
            more.name = "more"
            more.task.MergeFrom(task)
            with pytest.raises(PermissionDenied, match="needs the role operator"), translated():
                await stub.CreateService(control_pb2.CreateServiceRequest(spec=more))
            # What an operator made, a deployer may scale, and nothing else.
            await manager.control.CreateService(control_pb2.CreateServiceRequest(spec=more), None)
            more.replicas = 2
            await stub.UpdateService(control_pb2.UpdateServiceRequest(service="more", spec=more))
            more.task.container.args.append("sh")
            with pytest.raises(PermissionDenied, match="needs the role operator"), translated():
                await stub.UpdateService(control_pb2.UpdateServiceRequest(service="more", spec=more))
            await stub.RemoveService(control_pb2.RemoveServiceRequest(service="more"))
        with pytest.raises(PermissionDenied, match="'node rm' needs the role operator"), translated():
            await stub.RemoveNode(control_pb2.RemoveNodeRequest(node="w1", force=True))


async def test_an_operator_works_on_nodes_and_an_admin_on_users(manager: Any, address: str) -> None:
    async with control(address, await user(manager, "ann", UserRole.OPERATOR)) as stub:
        await stub.RemoveNode(control_pb2.RemoveNodeRequest(node="w1", force=True))
        with pytest.raises(PermissionDenied, match="'user ls' needs the role admin"), translated():
            await stub.ListUsers(control_pb2.ListUsersRequest())
    async with control(address, await user(manager, "ben", UserRole.ADMIN)) as stub:
        assert len((await stub.ListUsers(control_pb2.ListUsersRequest())).users) == 2


async def test_nodes_calls_are_not_for_users(manager: Any, address: str) -> None:
    own = await user(manager, "ann", UserRole.ADMIN)
    async with dial(address, identity=own) as channel:
        with pytest.raises(PermissionDenied, match="is for nodes of the cluster, not for users"), translated():
            await ca_pb2_grpc.CertificateServiceStub(channel).RenewCertificate(ca_pb2.RenewCertificateRequest())


async def test_what_a_user_may_do_is_as_its_record_says_now(manager: Any, address: str) -> None:
    own = await user(manager, "ann", UserRole.VIEWER)
    change_role = control_pb2.UpdateUserRequest(name="ann", role=types_pb2.USER_ROLE_DEPLOYER)
    async with control(address, own) as stub:
        await manager.control.UpdateUser(change_role, None)
        await stub.CreateService(control_pb2.CreateServiceRequest(spec=SERVICE))
        watched = stub.WatchService(control_pb2.WatchServiceRequest(service="web"))
        await watched.read()
        await manager.control.RevokeUser(control_pb2.RevokeUserRequest(name="ann"), None)
        with pytest.raises(PermissionDenied, match="user ann was revoked"), translated():
            async with asyncio.timeout(60):
                while await watched.read() is not grpc.aio.EOF:
                    pass
                raise AssertionError(await watched.code())
        with pytest.raises(PermissionDenied, match="user ann was revoked"), translated():
            await stub.ListNodes(control_pb2.ListNodesRequest())


async def test_a_name_taken_again_does_not_bring_an_old_certificate_back(manager: Any, address: str) -> None:
    old = await user(manager, "ann", UserRole.ADMIN)
    await manager.control.RemoveUser(control_pb2.RemoveUserRequest(name="ann"), None)
    for _ in range(2):
        with pytest.raises(PermissionDenied, match="the certificate of user ann counts no more"):
            await nodes(address, old)
        if "ann" not in manager.mirror.users:
            assert await nodes(address, await user(manager, "ann", UserRole.VIEWER)) == 3


async def test_a_user_renews_itself_and_the_key_before_counts_no_more(manager: Any, address: str) -> None:
    old = await user(manager, "ann", UserRole.VIEWER)
    key_pem, csr_pem = new_key_and_csr("whoever")
    async with control(address, old) as stub:
        answer = await stub.RenewUser(control_pb2.RenewUserRequest(csr_pem=csr_pem))
    assert await nodes(address, Identity(answer.certificate_pem, key_pem, answer.root_ca_pem)) == 3
    with pytest.raises(PermissionDenied, match="counts no more"):
        await nodes(address, old)


async def test_a_connection_that_outlives_its_certificate_begins_no_call(manager: Any) -> None:
    own = identity(manager, "m1", Role.MANAGER)
    clock = ManualClock(manager.clock.now_ns())
    server = new_server(interceptors=(Permission(manager.mirror, clock).gate(),))
    control_pb2_grpc.add_ControlServiceServicer_to_server(manager.control, server)
    port = server.add_secure_port("127.0.0.1:0", server_credentials(lambda: own, require_client=True))
    await server.start()
    async with dial(f"127.0.0.1:{port}", identity=own) as channel:
        stub = control_pb2_grpc.ControlServiceStub(channel)
        await stub.ListNodes(control_pb2.ListNodesRequest())
        await clock.advance(DAY_NS / 1e9)
        with pytest.raises(PermissionDenied, match="the certificate of this connection has run out"), translated():
            await stub.ListNodes(control_pb2.ListNodesRequest())
    await server.stop(None)


async def test_a_user_ends_when_it_was_said_to(manager: Any) -> None:
    await user(manager, "ann", UserRole.ADMIN)
    found = manager.mirror.users["ann"]
    later = ManualClock(found.expires_at_ns)
    call = Call("/shoal.v1.ControlService/ListNodes", UserPeer("ann", "c1", found.key), "ipv4:10.0.0.5:1")
    with pytest.raises(PermissionDenied, match="user ann has expired"):
        Permission(manager.mirror, later).check(call)


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ({"name": "x/y"}, "Invalid user name"),
        ({"name": "manager.shoal"}, "not in .shoal"),
        ({"role": types_pb2.USER_ROLE_UNSPECIFIED}, "a user is a viewer, deployer, operator or admin"),
        ({"life_ns": 1}, "a minute at least"),
        ({"csr_pem": "no"}, "signing request cannot be read"),
    ],
)
async def test_what_no_user_can_be_is_refused(manager: Any, wanted: dict[str, Any], sentence: str) -> None:
    good = {"name": "ann", "role": types_pb2.USER_ROLE_VIEWER, "life_ns": DAY_NS, "csr_pem": new_key_and_csr("x")[1]}
    with pytest.raises(InvalidArgument, match=sentence):
        await manager.control.CreateUser(control_pb2.CreateUserRequest(**{**good, **wanted}), None)
    await manager.control.CreateUser(control_pb2.CreateUserRequest(**good), None)
    with pytest.raises(Conflict, match="user ann already exists"):
        await manager.control.CreateUser(control_pb2.CreateUserRequest(**good), None)
