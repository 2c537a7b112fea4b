"""What TLS alone keeps out of a manager's port for members: every certificate that is none, and whoever shows none."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import msgspec
import pytest
from OpenSSL import SSL

from manager.api.permission import Permission
from manager.ca.authority import Authority
from shoal.errors import Unavailable
from shoal.model.node import Role
from shoal.rpc import dial, new_server, translated
from shoal.tls import Identity, server_credentials
from shoal.v1 import control_pb2, control_pb2_grpc
from tests.unit.manager.api.test_permission import DAY_NS, identity

LOOK = control_pb2.ListNodesRequest()


@pytest.fixture
async def port(manager: Any) -> AsyncIterator[int]:
    server = new_server(interceptors=(Permission(manager.mirror, manager.clock).gate(),))
    control_pb2_grpc.add_ControlServiceServicer_to_server(manager.control, server)
    own = identity(manager, "m1", Role.MANAGER)
    bound = server.add_secure_port("127.0.0.1:0", server_credentials(lambda: own, require_client=True))
    await server.start()
    yield bound
    await server.stop(None)


def made(manager: Any, authority: Authority, *, ago_ns: int = 0) -> Identity:
    """An identity of the manager "m1" by `authority`, which trusts the cluster whatever signed it."""
    found = authority.new_identity(
        node_id="m1", cluster_id="c1", role=Role.MANAGER, life_ns=DAY_NS, now_ns=manager.clock.now_ns() - ago_ns
    )
    return msgspec.structs.replace(found, root_ca_pem=manager.authority.root_ca_pem)


async def look(port: int, own: Identity | None, root_ca_pem: str = "") -> None:
    async with dial(f"127.0.0.1:{port}", identity=own, root_ca_pem=root_ca_pem) as channel:
        with translated():
            await control_pb2_grpc.ControlServiceStub(channel).ListNodes(LOOK, timeout=5)


@pytest.mark.parametrize("kind", ["another CA's", "expired", "not yet valid"])
async def test_a_certificate_that_is_none_opens_nothing(manager: Any, port: int, kind: str) -> None:
    now_ns = manager.clock.now_ns()
    wrong = {
        # Its root has the same name, with another key.
        "another CA's": made(manager, Authority.create("c1", now_ns)),
        "expired": made(manager, manager.authority, ago_ns=2 * DAY_NS),
        "not yet valid": made(manager, manager.authority, ago_ns=-2 * DAY_NS),
    }
    await look(port, made(manager, manager.authority))
    with pytest.raises(Unavailable):
        await look(port, wrong[kind])


async def test_nobody_without_a_certificate_or_without_tls(manager: Any, port: int) -> None:
    with pytest.raises(Unavailable):
        await look(port, None, manager.authority.root_ca_pem)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        with pytest.raises(Unavailable), translated():
            await control_pb2_grpc.ControlServiceStub(channel).ListNodes(LOOK, timeout=5)


@pytest.mark.parametrize("version", [SSL.TLS1_VERSION, SSL.TLS1_1_VERSION], ids=["1.0", "1.1"])
async def test_old_tls_is_not_spoken(port: int, version: int) -> None:
    def shake() -> None:
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_min_proto_version(version)
        context.set_max_proto_version(version)
        context.set_cipher_list(b"ALL:@SECLEVEL=0")
        with socket.create_connection(("127.0.0.1", port), timeout=5) as link:
            link.settimeout(None)
            connection = SSL.Connection(context, link)
            connection.set_alpn_protos([b"h2"])
            connection.set_connect_state()
            connection.do_handshake()

    with pytest.raises(SSL.Error):
        await asyncio.to_thread(shake)
