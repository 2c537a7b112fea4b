"""The membership of a host whose agent has just started: what was begun before is undone, and only then told of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from agent.database import Database
from agent.member import Rooms
from agent.membership import Membership
from agent.standing import Said
from shoal.clock import SystemClock
from shoal.errors import Unavailable
from shoal.model.container import Container
from shoal.settings import Paths
from tests.unit.agent.host import Containers


class Held(Containers):
    """They are listed once `go` is set."""

    def __init__(self) -> None:
        super().__init__([])
        self.asked, self.go = asyncio.Event(), asyncio.Event()

    async def list(self, *, all: bool = False) -> list[Container]:
        self.asked.set()
        await self.go.wait()
        return await super().list(all=all)


class Networks:
    async def assign(self, networks: Sequence[Any], bulletins: Sequence[Any]) -> None:
        return None


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = await Database.open(tmp_path / "agent.db", boot="boot1")
    yield opened
    await opened.close()


async def test_what_a_host_is_is_told_once_what_was_begun_is_undone(database: Database, tmp_path: Path) -> None:
    containers, unused = Held(), Any
    rooms = Rooms(containers, unused, Networks(), unused, unused, SystemClock())  # type: ignore[arg-type]
    membership = Membership(Paths(tmp_path, tmp_path / "run"), database, rooms, default_address="")
    says = asyncio.ensure_future(membership.manager_says())
    channel = asyncio.ensure_future(membership.manager_channel())
    running = asyncio.ensure_future(membership.run())
    await containers.asked.wait()
    assert not says.done()
    assert not channel.done()
    containers.go.set()
    assert await says == Said()
    with pytest.raises(Unavailable, match="not a swarm manager"):
        await channel
    running.cancel()
