"""Leader: which manager's loops decide. The key /leader, bound to a lease, says so; its revision fences every write.

A manager that cannot renew its lease is no leader any more, and whatever it still writes fails by the fence. The
key of an earlier process of the same manager is taken over at once: its store and its data directory admit one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from manager.control.action import LeadershipLost
from manager.store.base import Conflict, Guard, Put, Store, Txn
from shoal.clock import Clock
from shoal.errors import Compacted, Exhausted, NotFound, Unavailable

log = logging.getLogger(__name__)

KEY = "/leader"
LEASE_S = 5.0
RENEW_S = 1.5


class Leader:
    """`work` runs while this manager leads, with the guard that its writes need; it must not end by itself."""

    def __init__(
        self, store: Store, *, node_id: str, work: Callable[[tuple[Guard, ...]], Awaitable[None]], clock: Clock
    ) -> None:
        self._store = store
        self._node_id = node_id
        self._work = work
        self._clock = clock
        self.leads = False

    async def run(self) -> None:
        """Stand for election, for as long as the manager lives."""
        while True:
            try:
                lease = await self._store.grant(LEASE_S)
                fence = Guard(KEY, await self._win(lease))
                log.info("leading revision=%d", fence.revision)
                self.leads = True
                await self._lead(fence, lease)
            except (LeadershipLost, NotFound) as error:
                log.warning("not leading any more: %s", error)
            except (Exhausted, Unavailable) as error:
                log.error("cannot lead, trying again: %s", error)  # a full disk is no bug
                await self._clock.sleep(RENEW_S)
            finally:
                self.leads = False

    async def _win(self, lease: int) -> int:
        """The revision at which the key became ours."""
        while True:
            found = await self._store.read(KEY)
            holder = next((record for record in found.records if record.key == KEY), None)
            if holder is None or holder.value.decode() == self._node_id:
                guard = Guard(KEY, holder.mod_revision if holder else 0)
                try:
                    return await self._store.txn(Txn((guard,), (Put(KEY, self._node_id.encode(), lease),)))
                except Conflict:
                    continue
            await self._until_changed(found.revision, lease)

    async def _until_changed(self, revision: int, lease: int) -> None:
        """Keep our own lease while somebody else leads."""
        watching = asyncio.ensure_future(self._changed(revision))
        keeping = asyncio.ensure_future(self._keep(lease))
        await _first_of(watching, keeping)

    async def _changed(self, revision: int) -> None:
        try:
            async for _ in self._store.watch(KEY, after=revision):
                return
        except Compacted:
            return

    async def _lead(self, fence: Guard, lease: int) -> None:
        working = asyncio.ensure_future(self._work((fence,)))
        keeping = asyncio.ensure_future(self._keep(lease))
        await _first_of(working, keeping)

    async def _keep(self, lease: int) -> None:
        """Renew the lease until that fails. Raises NotFound once it has ended."""
        renewed = self._clock.monotonic()
        while True:
            await self._clock.sleep(RENEW_S)
            try:
                await self._store.keep_alive(lease)
                renewed = self._clock.monotonic()
            except Unavailable:
                if self._clock.monotonic() - renewed > LEASE_S:
                    raise


async def _first_of(*doing: asyncio.Future[None]) -> None:
    """The first that ends ends the others; what it raises is raised."""
    try:
        done, _ = await asyncio.wait(doing, return_when=asyncio.FIRST_COMPLETED)
        for each in done:
            each.result()
    finally:
        for each in doing:
            each.cancel()
        await asyncio.gather(*doing, return_exceptions=True)
