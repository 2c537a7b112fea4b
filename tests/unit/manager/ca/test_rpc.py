"""A certificate that ran out while its host was off, over real TLS: who gets another one, and who does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.certificate import Credentials, Renewal, restore
from manager.ca.authority import Authority
from manager.ca.rpc import JoinServicer
from shoal.errors import InvalidArgument, PermissionDenied, Unavailable
from shoal.model.node import Role
from shoal.rpc import new_server
from shoal.tls import Identity, Peer, server_credentials
from shoal.v1 import ca_pb2_grpc

DAY_NS = 24 * 3600 * 10**9


def identity(manager: Any, node_id: str, *, days_ago: int, authority: Authority | None = None) -> Identity:
    """One that ran out so many days ago."""
    made: Identity = (authority or manager.authority).new_identity(
        node_id=node_id,
        cluster_id="c1",
        role=Role.WORKER,
        life_ns=DAY_NS,
        now_ns=manager.clock.now_ns() - (days_ago + 1) * DAY_NS,
    )
    return made


@pytest.fixture
async def address(manager: Any) -> AsyncIterator[str]:
    """A manager's, as agents know it: the join port is the next one."""
    join = JoinServicer(
        ledger=manager.room.ledger,
        store_kind="sqlite",
        mirror=manager.mirror,
        authority=manager.room.authority,
        seal=manager.seal,
        clock=manager.clock,
        managers=list,
    )
    own = manager.authority.new_identity(
        node_id="m1", cluster_id="c1", role=Role.MANAGER, life_ns=DAY_NS, now_ns=manager.clock.now_ns()
    )
    server = new_server()
    ca_pb2_grpc.add_JoinServiceServicer_to_server(join, server)
    port = server.add_secure_port("127.0.0.1:0", server_credentials(lambda: own, require_client=False))
    await server.start()
    yield f"127.0.0.1:{port - 1}"
    await server.stop(None)


async def test_a_member_that_was_off_for_a_week_comes_back_by_itself(manager: Any, address: str) -> None:
    old = identity(manager, "w1", days_ago=7)
    fresh = await restore(old, address)
    assert fresh.peer == Peer("w1", Role.WORKER, "c1")
    assert fresh.not_after.timestamp() * 1e9 > manager.clock.now_ns()
    assert fresh.key_pem != old.key_pem


async def test_an_agent_that_starts_with_an_old_certificate_renews_it_at_once(
    manager: Any, address: str, tmp_path: Path
) -> None:
    credentials = Credentials(tmp_path, identity(manager, "w1", days_ago=2))
    renewal = asyncio.create_task(Renewal(credentials, lambda: [address], clock=manager.clock).run())
    async with asyncio.timeout(60):
        await credentials.renewed.wait()
    renewal.cancel()
    assert credentials.current().not_after.timestamp() * 1e9 > manager.clock.now_ns()
    assert Identity.load(tmp_path) == credentials.current()


async def test_a_node_that_was_removed_or_off_for_too_long_does_not(manager: Any, address: str) -> None:
    with pytest.raises(PermissionDenied, match="not a member of this cluster any more"):
        await restore(identity(manager, "removed", days_ago=1), address)
    with pytest.raises(PermissionDenied, match="ran out more than 720 hours ago; leave the cluster"):
        await restore(identity(manager, "w1", days_ago=31), address)


async def test_the_certificate_alone_is_not_enough(manager: Any, address: str) -> None:
    old, another = (identity(manager, "w1", days_ago=1) for _ in range(2))
    thief = Identity(old.certificate_pem, another.key_pem, old.root_ca_pem)
    with pytest.raises(InvalidArgument, match="does not hold its key"):
        await restore(thief, address)


async def test_another_clusters_certificate_is_not_enough(manager: Any, address: str) -> None:
    other = Authority.create("c1", manager.clock.now_ns() - 100 * DAY_NS)
    stranger = identity(manager, "w1", days_ago=1, authority=other)
    with pytest.raises(Unavailable):  # it trusts its own cluster's managers alone
        await restore(stranger, address)
    trusting = Identity(stranger.certificate_pem, stranger.key_pem, manager.authority.root_ca_pem)
    with pytest.raises(InvalidArgument, match="not of this cluster"):
        await restore(trusting, address)
