"""Every implementation of the store's port, by name: the suite runs once with each."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from manager.store.base import Store
from manager.store.sqlite import SqliteStore
from shoal.clock import ManualClock

OpenStore = Callable[[], Awaitable[Store]]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["sqlite"])
async def reopen(request, tmp_path: Path, clock: ManualClock) -> AsyncIterator[OpenStore]:
    """Opens the same store again, after closing the one before."""
    opened: list[Store] = []

    async def open_again() -> Store:
        while opened:
            await opened.pop().close()
        opened.append(await SqliteStore.open(tmp_path / "store.db", clock=clock))
        return opened[-1]

    yield open_again
    while opened:
        await opened.pop().close()


@pytest.fixture
async def store(reopen: OpenStore) -> Store:
    return await reopen()
