"""Who sees and who writes while etcd, or the way to it, breaks: so that what was lost or came twice is found."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from manager.store.etcd.settings import EtcdSettings
from manager.store.etcd.store import EtcdStore
from shoal.clock import SystemClock
from shoal.errors import Unavailable
from tests.contract.store.steps import put

CLOCK = SystemClock()
# A call is refused within 3 s, plus what a crowded machine adds.
REFUSED_S = 20.0
TOLD_S = 60.0


@contextlib.asynccontextmanager
async def opened(first: str | EtcdSettings, *more: str) -> AsyncIterator[EtcdStore]:
    """By settings, or by endpoints."""
    settings = first if isinstance(first, EtcdSettings) else EtcdSettings((first, *more))
    store = await EtcdStore.open(settings, clock=CLOCK)
    try:
        yield store
    finally:
        await store.close()


class Watcher:
    """Follows a store from its present revision on, and remembers all that it was shown."""

    def __init__(self, store: EtcdStore, after: int) -> None:
        self.keys: list[str] = []
        self.revision = after
        self._moved = asyncio.Event()
        self._task = asyncio.create_task(self._follow(store, after))

    async def _follow(self, store: EtcdStore, after: int) -> None:
        async for commit in store.watch("/", after=after):
            assert commit.revision > self.revision
            self.revision = commit.revision
            self.keys += [change.key for change in commit.changes]
            self._moved.set()

    async def until(self, key: str, *, within_s: float = 30) -> None:
        async with asyncio.timeout(within_s):
            while key not in self.keys:
                self._moved.clear()
                moved = asyncio.ensure_future(self._moved.wait())
                await asyncio.wait((moved, self._task), return_when=asyncio.FIRST_COMPLETED)
                moved.cancel()
                if self._task.done():
                    await self._task

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def saw_all(self, promised: set[str], *, tried: set[str]) -> None:
        """Every acknowledged key, none twice; and nothing that nobody tried to write."""
        assert len(self.keys) == len(set(self.keys))
        assert promised <= set(self.keys) <= tried


@contextlib.asynccontextmanager
async def watched(store: EtcdStore) -> AsyncIterator[Watcher]:
    watcher = Watcher(store, (await store.read("/")).revision)
    try:
        yield watcher
    finally:
        await watcher.stop()


class Scribe:
    """Writes one new key after the other, as `promised` knows, until told to stop."""

    def __init__(self, store: EtcdStore) -> None:
        self.tried: set[str] = set()
        self.promised: set[str] = set()
        self.errors = 0
        self._store = store
        self._stopping = False
        self._task = asyncio.create_task(self._write())

    async def _write(self) -> None:
        while not self._stopping:
            key = f"/{len(self.tried)}"
            self.tried.add(key)
            try:
                await self._store.txn(put(key, guard=0))
                self.promised.add(key)
            except Unavailable:
                self.errors += 1

    async def more(self, count: int) -> None:
        """Return once so many more writes were acknowledged."""
        goal = len(self.promised) + count
        async with asyncio.timeout(60):
            while len(self.promised) < goal:
                assert not self._task.done()
                await asyncio.sleep(0.01)

    async def stop(self) -> None:
        self._stopping = True
        await self._task


async def at_last(store: EtcdStore, key: str) -> None:
    """Write `key`, as often as it takes while etcd finds together again."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(Unavailable):
                await store.txn(put(key))
                return


async def told(store: EtcdStore, trouble: bool) -> None:
    async with asyncio.timeout(TOLD_S):
        while bool(store.trouble) is not trouble:
            await asyncio.sleep(0.02)
