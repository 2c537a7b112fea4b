"""That a manager serves, seen by itself and by the others, over a real store and a clock that jumps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from manager.control.tenure import LEASE_S, Tenure
from manager.store.mirror import Mirror
from manager.store.sqlite.store import SqliteStore
from shoal.clock import ManualClock
from shoal.errors import Unavailable


class Store:
    """A real one that can be out of reach of one manager."""

    def __init__(self, inner: SqliteStore) -> None:
        self.inner = inner
        self.cut = False

    async def keep_alive(self, lease: int) -> None:
        if self.cut:
            raise Unavailable("the store does not answer")
        await self.inner.keep_alive(lease)

    def __getattr__(self, name: str) -> Any:
        if self.cut:
            raise Unavailable("the store does not answer")
        return getattr(self.inner, name)


class Place:
    def __init__(self, store: Store, mirror: Mirror, clock: ManualClock) -> None:
        self.store, self.mirror, self.clock = store, mirror, clock
        self.tenure = Tenure(store, node_id="m1", address="10.9.0.1:2377", clock=clock)  # type: ignore[arg-type]

    async def present(self) -> bool:
        await self.mirror.reached((await self.store.inner.read("/")).revision)
        return "m1" in self.mirror.managers

    async def gone(self) -> None:
        async with asyncio.timeout(60):
            while await self.present():
                await asyncio.sleep(0.01)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    clock = ManualClock()
    store = Store(await SqliteStore.open(tmp_path / "store.db", clock=clock))
    mirror = Mirror()
    made = Place(store, mirror, clock)
    running = [asyncio.create_task(mirror.run(store.inner)), asyncio.create_task(made.tenure.run())]
    await made.tenure.begun()
    yield made
    for each in running:
        each.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await store.inner.close()


async def test_who_serves_is_there_for_all(place: Place) -> None:
    assert await place.present()
    assert place.mirror.managers["m1"].address == "10.9.0.1:2377"
    for _ in range(20):
        await place.clock.advance(LEASE_S / 2)
    assert place.tenure.lease
    assert await place.present()


async def test_an_end_is_seen_at_once(place: Place) -> None:
    lease = place.tenure.lease
    await place.tenure.end()
    assert not await place.present()
    await place.tenure.over(lease)
    await place.clock.advance(10 * LEASE_S)
    assert not place.tenure.lease


async def test_who_cannot_renew_steps_down_by_its_own_clock_and_serves_again_later(place: Place) -> None:
    lease = place.tenure.lease
    place.store.cut = True
    await place.clock.advance(LEASE_S)
    await place.tenure.over(lease)
    assert place.tenure.silent_s >= LEASE_S
    await place.gone()
    place.store.cut = False
    await place.clock.advance(1)
    assert await place.tenure.begun() != lease
    assert await place.present()
