"""Whom a node lets in, and what for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.database import Database
from agent.trust import Doorkeeper
from shoal.access import Call
from shoal.clock import ManualClock
from shoal.errors import PermissionDenied
from shoal.model.base import Meta
from shoal.model.node import Role
from shoal.model.trust import Revocation, Trust
from shoal.tls import Peer

SUMMON = "/shoal.v1.SummonService/Summon"
ENGINE = "/shoal.v1.ContainerService/ListContainers"


@pytest.fixture
async def doorkeeper(tmp_path: Path) -> AsyncIterator[Doorkeeper]:
    """Of a node that knows "m1" as its only manager, and that "gone" was removed."""
    database, clock = await Database.open(tmp_path / "agent.db", boot="b"), ManualClock()
    made = Doorkeeper(database, clock)
    await made.learn(Trust(("m1",), (Revocation(Meta("gone"), clock.now_ns() + 10**12),)))
    yield made
    await database.close()


def call(method: str, node_id: str, role: Role = Role.MANAGER) -> Call:
    return Call(method, Peer(node_id, role, "c1"), "ipv4:10.0.0.1:1")


def test_a_manager_that_nobody_knows_yet_may_summon_and_nothing_else(doorkeeper: Doorkeeper) -> None:
    doorkeeper.check(call(SUMMON, "restored"))
    with pytest.raises(PermissionDenied):
        doorkeeper.check(call(ENGINE, "restored"))
    doorkeeper.check(call(ENGINE, "m1"))


def test_workers_and_who_was_removed_do_not_summon(doorkeeper: Doorkeeper) -> None:
    for caller in (call(SUMMON, "w1", Role.WORKER), call(SUMMON, "gone")):
        with pytest.raises(PermissionDenied):
            doorkeeper.check(caller)
