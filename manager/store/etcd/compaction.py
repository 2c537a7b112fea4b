"""Compaction: etcd forgets history that nobody needs any more; and finds room again when its database is full.

Whoever leads runs it. What a watch may still ask for stays: the last revisions, and all of the last period, however
much that was; one that was away for longer reads everything again.
"""

from __future__ import annotations

import logging

from manager.store.etcd.store import EtcdStore
from manager.store.member import Members
from shoal.clock import Clock
from shoal.errors import ShoalError

log = logging.getLogger(__name__)
KEPT_REVISIONS = 10_000
PERIOD_S = 30.0


class Compactor:
    def __init__(
        self, store: EtcdStore, *, clock: Clock, kept_revisions: int = KEPT_REVISIONS, period_s: float = PERIOD_S
    ) -> None:
        self._store = store
        self._members = Members(store.client, clock)
        self._clock = clock
        self._kept_revisions = kept_revisions
        self._period_s = period_s

    async def run(self) -> None:
        """For ever; what fails is tried again a period later."""
        before = 0
        failing = False
        while True:
            try:
                now = await self._store.revision()
                if await self._members.alarms():
                    await self.relieve(now)
                elif (upto := compactable(before, now, self._kept_revisions)) > 0:
                    await self._store.compact(upto)
                before = now
                failing = False
            except ShoalError as error:
                if not failing:
                    log.warning("the store's history is not compacted, trying on: %s", error)
                failing = True
            await self._clock.sleep(self._period_s)

    async def relieve(self, revision: int) -> None:
        """Make room in a full database, at the price of all history up to `revision`."""
        log.warning("etcd's database is full: compacting and defragmenting it")
        await self._store.compact(revision)
        await self._members.defragment()
        await self._members.disarm()


def compactable(before: int, now: int, kept: int) -> int:
    """Up to which revision to compact: `kept` stay, and all since `before`, the revision a period ago; 0: nothing."""
    return max(0, min(before, now - kept))
