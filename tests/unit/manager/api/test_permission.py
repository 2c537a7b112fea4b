"""Who may call what on a manager, over real mutual TLS, and for how long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest

from manager.api.permission import Permission
from manager.ca.rpc import CertificateServicer
from manager.control.action import change, commit, touched
from shoal.access import Gate
from shoal.errors import PermissionDenied
from shoal.model.base import Meta
from shoal.model.container import ContainerSpec
from shoal.model.node import NodeSpec, Role
from shoal.model.service import Service, ServiceSpec, TaskSpec
from shoal.rpc import dial, new_server, translated
from shoal.tls import Identity, new_key_and_csr, server_credentials
from shoal.v1 import ca_pb2, ca_pb2_grpc, control_pb2, control_pb2_grpc
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
    gate = Gate(Permission(manager.mirror).check)
    server = new_server(interceptors=(gate,))
    renewal = CertificateServicer(mirror=manager.mirror, authority=manager.authority, clock=manager.clock)
    ca_pb2_grpc.add_CertificateServiceServicer_to_server(renewal, server)
    control_pb2_grpc.add_ControlServiceServicer_to_server(manager.control, server)
    own = identity(manager, "m1", Role.MANAGER)
    port = server.add_secure_port("127.0.0.1:0", server_credentials(lambda: own, require_client=True))
    await server.start()
    watching = asyncio.create_task(gate.run(manager.clock))
    yield f"127.0.0.1:{port}"
    watching.cancel()
    await server.stop(None)


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
            async with asyncio.timeout(5):
                while await watched.read() is not grpc.aio.EOF:
                    pass
                raise AssertionError(await watched.code())
    assert manager.mirror.revocations["m2"].until_ns > manager.clock.now_ns() + DAY_NS
