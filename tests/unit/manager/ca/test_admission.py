"""Tokens that were made for an occasion: whom they let in, how often, and what who comes too late is told."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from manager.ca import admission
from manager.ca.rpc import JoinServicer
from manager.control.action import Delete
from manager.store.view import View
from shoal.errors import NotFound, PermissionDenied
from shoal.model.base import Meta
from shoal.model.node import NodeState, Role
from shoal.model.token import Token
from shoal.model.trust import Revocation
from shoal.tls import csr_for, new_key
from shoal.v1 import ca_pb2, control_pb2, types_pb2
from tests.unit.manager.conftest import NOW

MINUTE_NS = 60 * 10**9
WEEK_NS = 7 * 24 * 60 * MINUTE_NS


class Context:
    def peer(self) -> str:
        return "ipv4:10.9.0.77:5"


@pytest.fixture
def door(manager: Any) -> JoinServicer:
    return JoinServicer(
        ledger=manager.room.ledger,
        store_kind="sqlite",
        mirror=manager.mirror,
        authority=manager.room.authority,
        seal=manager.seal,
        clock=manager.clock,
        managers=lambda: ["10.9.0.9:2377"],
    )


async def made(manager: Any, **wanted: Any) -> control_pb2.CreateJoinTokenResponse:
    request = control_pb2.CreateJoinTokenRequest(role=types_pb2.ROLE_WORKER, **wanted)
    answer: control_pb2.CreateJoinTokenResponse = await manager.control.CreateJoinToken(request, None)
    return answer


async def come(door: JoinServicer, text: str, key_pem: str = "") -> str:
    """The id of the node that a host becomes."""
    request = ca_pb2.IssueCertificateRequest(token=text, csr_pem=csr_for(key_pem or new_key(), "n9"), hostname="n9")
    return (await door.IssueCertificate(request, Context())).node_id


async def test_as_many_hosts_as_it_says_come_in_and_no_other(manager: Any, door: JoinServicer) -> None:
    token = await made(manager, uses=2, life_ns=15 * MINUTE_NS)
    first, second = [await come(door, token.text) for _ in range(2)]
    assert {first, second} < set(manager.mirror.nodes)
    with pytest.raises(PermissionDenied, match=rf"the join token {token.token.token.meta.id} has let in 2 of 2 hosts"):
        await come(door, token.text)
    assert manager.mirror.tokens[token.token.token.meta.id].used == 2


async def test_of_many_that_come_at_once_one_gets_the_one_use(manager: Any, door: JoinServicer) -> None:
    token = await made(manager, uses=1)
    before = len(manager.mirror.nodes)
    came = await asyncio.gather(*(come(door, token.text) for _ in range(8)), return_exceptions=True)
    assert sum(isinstance(each, str) for each in came) == 1
    assert sum(isinstance(each, PermissionDenied) for each in came) == 7
    assert len(manager.mirror.nodes) == before + 1


async def test_all_of_many_that_come_at_once_are_counted(manager: Any, door: JoinServicer) -> None:
    token = await made(manager)
    await asyncio.gather(*(come(door, token.text) for _ in range(8)))
    assert manager.mirror.tokens[token.token.token.meta.id].used == 8


async def test_a_join_that_broke_off_goes_on_as_the_same_node(manager: Any, door: JoinServicer) -> None:
    token = await made(manager, uses=1)
    key_pem = new_key()
    node_id = await come(door, token.text, key_pem)
    assert await come(door, token.text, key_pem) == node_id
    assert manager.mirror.tokens[token.token.token.meta.id].used == 1
    # Once its agent has called, the answer was not lost: whoever comes again is another, and so is who was removed.
    node = manager.mirror.nodes[node_id]
    key = node.description.certificate.key
    called = msgspec.structs.replace(node, status=msgspec.structs.replace(node.status, state=NodeState.READY))
    assert admission.joined_before(View([called]), key) is None
    for before in (called, Revocation(node.meta)):
        assert admission.free_id(View([before]), key) != node_id
    assert admission.free_id(View(), key) == node_id


async def test_expired_and_revoked_ones_say_so(manager: Any, door: JoinServicer) -> None:
    expired = await made(manager, life_ns=1)
    with pytest.raises(PermissionDenied, match=r"has expired; make another with 'shoal swarm token create'"):
        await come(door, expired.text)
    revoked = await made(manager, uses=1)
    key_pem = new_key()
    await come(door, revoked.text, key_pem)
    id = revoked.token.token.meta.id
    await manager.control.RevokeJoinToken(control_pb2.RevokeJoinTokenRequest(token=id[:8]), None)
    for comer in ("", key_pem):
        with pytest.raises(PermissionDenied, match="was revoked"):
            await come(door, revoked.text, comer)
    with pytest.raises(NotFound, match="No such join token: nosuchtoken"):
        await manager.control.RevokeJoinToken(control_pb2.RevokeJoinTokenRequest(token="nosuchtoken"), None)


async def test_what_the_store_holds_opens_nothing(manager: Any) -> None:
    token = await made(manager, description="for rack 7")
    secret = token.text.rpartition("-")[2].encode()
    assert not any(secret in record.value for record in (await manager.store.read("/")).records)
    (shown,) = (await manager.control.ListJoinTokens(control_pb2.ListJoinTokensRequest(), None)).tokens
    assert (shown.state, shown.token.description, shown.token.secret_hash) == ("valid", "for rack 7", b"")


async def test_ended_ones_are_listed_when_asked_for(manager: Any) -> None:
    await made(manager, life_ns=1)
    assert not (await manager.control.ListJoinTokens(control_pb2.ListJoinTokensRequest(), None)).tokens
    (shown,) = (await manager.control.ListJoinTokens(control_pb2.ListJoinTokensRequest(all=True), None)).tokens
    assert shown.state == "expired"


@pytest.mark.parametrize(
    ("token", "ended_ns"),
    [
        (Token(Meta("t"), Role.WORKER, expires_at_ns=NOW), NOW),
        (Token(Meta("t"), Role.WORKER, expires_at_ns=NOW + 9, revoked_at_ns=NOW), NOW),
        (Token(Meta("t", updated_at_ns=NOW), Role.WORKER, uses=1, used=1, expires_at_ns=NOW + 9), NOW),
        (Token(Meta("t", updated_at_ns=NOW), Role.WORKER, uses=1, used=1), NOW),
    ],
    ids=["expired", "revoked", "used up before it expires", "used up"],
)
def test_a_token_is_forgotten_a_week_after_its_end(token: Token, ended_ns: int) -> None:
    early = admission.reconcile(View([token]), "t", ended_ns + WEEK_NS - 1, str)
    assert (early.actions, early.requeue_at_ns) == ((), ended_ns + WEEK_NS)
    (action,) = admission.reconcile(View([token]), "t", ended_ns + WEEK_NS, str).actions
    assert isinstance(action, Delete)


def test_one_without_an_end_stays() -> None:
    token = Token(Meta("t"), Role.WORKER)
    assert admission.reconcile(View([token]), "t", NOW + 100 * WEEK_NS, str) == admission.NOTHING
