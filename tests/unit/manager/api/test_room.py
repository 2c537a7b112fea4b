"""Writing where the mirror is behind the store, as it may be while another manager writes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from manager.api.room import writing
from manager.control.action import touched
from manager.store.base import Commit, Snapshot, Store
from manager.store.mirror import Mirror


class Late:
    """A store from which nothing new is heard until `heard` is set."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.heard = asyncio.Event()

    async def read(self, prefix: str) -> Snapshot:
        return await self._store.read(prefix)

    async def watch(self, prefix: str, *, after: int) -> AsyncIterator[Commit]:
        await self.heard.wait()
        async for commit in self._store.watch(prefix, after=after):
            yield commit


@pytest.fixture
async def late(manager: Any) -> AsyncIterator[Late]:
    """The manager's room has a mirror that follows this."""
    late, mirror = Late(manager.store), Mirror()
    following = asyncio.create_task(mirror.run(late))  # type: ignore[arg-type]
    await mirror.reached(0)
    manager.room = msgspec.structs.replace(manager.room, mirror=mirror)
    yield late
    following.cancel()


async def test_a_change_waits_for_what_another_manager_wrote(manager: Any, late: Late) -> None:
    tried = []

    def attempt() -> Any:
        tried.append(manager.room.mirror.revision)
        return writing(touched(manager.room.mirror.nodes["w1"], 7))

    await manager.store.txn(writing(touched(manager.mirror.nodes["w1"], 5)))
    changing = asyncio.create_task(manager.room.change(attempt))
    await asyncio.wait({changing}, timeout=0.5)
    assert (changing.done(), len(tried)) == (False, 1)
    late.heard.set()
    await changing
    assert len(tried) == 2
    assert manager.room.mirror.nodes["w1"].meta.updated_at_ns == 7
