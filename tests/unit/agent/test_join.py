"""Joining over real TLS: the root is checked before the secret is said, and each refusal is one sentence."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from agent.join import join, parse_token
from shoal.errors import InvalidArgument, PermissionDenied, Unavailable
from shoal.ids import base36
from shoal.model.node import Availability, Role
from shoal.rpc import new_server
from shoal.tls import new_key, server_credentials
from shoal.v1 import ca_pb2, ca_pb2_grpc, types_pb2
from tests.unit.agent.conftest import CLUSTER, Authority, sign

SECRET = "s" * 25


def token_for(authority: Authority, secret: str = SECRET) -> str:
    root = x509.load_pem_x509_certificate(authority.root_pem.encode())
    digest = hashlib.sha256(root.public_bytes(serialization.Encoding.DER)).digest()
    return f"SHTKN-1-{base36(int.from_bytes(digest), 50)}-{secret}"


class Door(ca_pb2_grpc.JoinServiceServicer):
    """The manager's join port."""

    def __init__(self, authority: Authority) -> None:
        self.authority = authority
        self.asked: list[ca_pb2.IssueCertificateRequest] = []
        self.address = ""

    async def IssueCertificate(
        self, request: ca_pb2.IssueCertificateRequest, context: Any
    ) -> ca_pb2.IssueCertificateResponse:
        self.asked.append(request)
        if request.token != token_for(self.authority):
            raise PermissionDenied("the join token is not valid for this cluster", hint="get the present one")
        return ca_pb2.IssueCertificateResponse(
            node_id="node7",
            cluster_id=CLUSTER,
            role=types_pb2.ROLE_WORKER,
            certificate_pem=sign(self.authority, request.csr_pem, "node7"),
            root_ca_pem=self.authority.root_pem,
            managers=["10.0.0.1:2377"],
        )


@pytest.fixture
async def door(authority: Authority) -> AsyncIterator[Door]:
    door = Door(authority)
    server = new_server()
    ca_pb2_grpc.add_JoinServiceServicer_to_server(door, server)
    identity = authority.identity("manager1", "manager")
    port = server.add_secure_port("127.0.0.1:0", server_credentials(lambda: identity, require_client=False))
    await server.start()
    # The address of a manager is that of its main port; it is joined at the next one.
    door.address = f"127.0.0.1:{port - 1}"
    yield door
    await server.stop(None)


async def test_a_right_token_gets_an_identity(door: Door, authority: Authority) -> None:
    token = parse_token(f" {token_for(authority)}\n")
    joined = await join(token, door.address, key_pem=new_key(), availability=Availability.DRAIN, hostname="n7")
    assert (joined.identity.node_id, joined.identity.role) == ("node7", Role.WORKER)
    assert joined.managers == ("10.0.0.1:2377",)
    assert (door.asked[0].hostname, door.asked[0].availability) == ("n7", types_pb2.AVAILABILITY_DRAIN)


async def test_a_token_of_another_cluster_never_tells_its_secret(door: Door) -> None:
    token = parse_token(token_for(Authority()))
    with pytest.raises(PermissionDenied, match=f"root CA of the manager at {door.address} is not the one"):
        await join(token, door.address, key_pem=new_key(), availability=Availability.ACTIVE, hostname="n7")
    assert door.asked == []


async def test_a_wrong_secret_is_refused_by_the_manager(door: Door, authority: Authority) -> None:
    token = parse_token(token_for(authority, "x" * 25))
    with pytest.raises(PermissionDenied, match="join token is not valid for this cluster"):
        await join(token, door.address, key_pem=new_key(), availability=Availability.ACTIVE, hostname="n7")


@pytest.mark.parametrize("text", ["", "nonsense", "SWMTKN-1-x-y", "SHTKN-1-" + "0" * 49 + "-" + "0" * 25])
def test_what_is_no_token_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid join token; print a valid one"):
        parse_token(text)


def test_a_token_shows_its_secret_to_no_log(authority: Authority) -> None:
    assert SECRET not in repr(parse_token(token_for(authority)))


async def test_a_closed_port_is_told(authority: Authority) -> None:
    with pytest.raises(Unavailable, match=r"no manager answers at 127.0.0.1:2: Connection refused"):
        await join(
            parse_token(token_for(authority)),
            "127.0.0.1:1",
            key_pem=new_key(),
            availability=Availability.ACTIVE,
            hostname="n7",
        )


async def test_a_port_that_speaks_no_tls_is_told(authority: Authority) -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, family=socket.AF_INET)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(Unavailable, match="is no manager of a swarm"):
        await join(
            parse_token(token_for(authority)),
            f"127.0.0.1:{port - 1}",
            key_pem=new_key(),
            availability=Availability.ACTIVE,
            hostname="n7",
        )
    server.close()


@pytest.mark.parametrize("address", ["", "host:port", "10.0.0.1:99999"])
async def test_a_bad_manager_address_is_refused(authority: Authority, address: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid manager address"):
        await join(
            parse_token(token_for(authority)),
            address,
            key_pem=new_key(),
            availability=Availability.ACTIVE,
            hostname="n7",
        )
