"""Tenure: that this manager serves, as the others see it. One lease of the store holds its presence, and its
leadership while it leads (`manager/leader.py`); both go with it, at once when it is ended politely.

A manager that has not renewed its lease within the lease's own time, by its own clock, serves no more, whatever the
store would say: by then others may have taken over what was its. It takes a new lease as soon as it can.
"""

from __future__ import annotations

import asyncio
import logging

from manager.store.base import Put, Store, Txn
from manager.store.presence import Presence
from manager.store.records import encode, key_for
from shoal.clock import Clock
from shoal.errors import Exhausted, NotFound, Unavailable
from shoal.model.base import Meta
from shoal.tasks import first_of

log = logging.getLogger(__name__)

LEASE_S = 4.0
RENEW_S = 1.0
RETRY_S = 0.5
END_S = 1.0


class Tenure:
    """`run` must run for anything else to work."""

    def __init__(self, store: Store, *, node_id: str, address: str, clock: Clock) -> None:
        self._store = store
        self._presence = Presence(Meta(node_id), address)
        self._clock = clock
        self._renewed = clock.monotonic()
        self._ending = False
        self._changed = asyncio.Event()
        # The lease while it is held, else 0; and when the last one began, in monotonic seconds.
        self.lease = 0
        self.since = self._renewed

    @property
    def silent_s(self) -> float:
        """How long ago the store was last heard."""
        return self._clock.monotonic() - self._renewed

    async def begun(self) -> int:
        """The lease, once there is one."""
        while not self.lease:
            await self._changed.wait()
        return self.lease

    async def over(self, lease: int) -> None:
        """Return once `lease` is not held any more."""
        while self.lease == lease:
            await self._changed.wait()

    async def run(self) -> None:
        """Hold a lease, for as long as the manager lives."""
        failing = False
        while not self._ending:
            try:
                await self._hold()
            except (Exhausted, NotFound, Unavailable) as error:
                if self.lease or not failing:
                    log.error("this manager serves no more until the store answers: %s", error)  # no bug of ours
                failing = True
            finally:
                self._set(0)
            await self._clock.sleep(RETRY_S)
        await asyncio.Event().wait()

    async def end(self) -> None:
        """Give everything up at once, so that nobody waits for the lease to run out. At most 1 s."""
        lease, self._ending = self.lease, True
        self._set(0)
        if lease:
            try:
                async with asyncio.timeout(END_S):
                    await self._store.revoke(lease)
            except (TimeoutError, Exhausted, Unavailable) as error:
                log.warning("the lease could not be given back and runs out by itself: %s", error)

    async def _hold(self) -> None:
        """Be present under a new lease until that is lost, whose error is raised, or given up."""
        asked = self._clock.monotonic()
        lease = await self._store.grant(LEASE_S)
        await self._store.txn(Txn(puts=(Put(key_for(self._presence), encode(self._presence), lease),)))
        if self._ending:
            await self._store.revoke(lease)
            return
        self._renewed = asked
        self.since = self._clock.monotonic()
        self._set(lease)
        await first_of(self._renew(lease), self._deadline(), self.over(lease))

    async def _renew(self, lease: int) -> None:
        failing = False
        while True:
            await self._clock.sleep(RENEW_S)
            # The lease's time begins when the store hears of it, which is later than this.
            asked = self._clock.monotonic()
            try:
                await self._store.keep_alive(lease)
            except (Exhausted, Unavailable) as error:
                if not failing:
                    log.warning("the lease could not be renewed, trying again: %s", error)
                failing = True
            else:
                failing = False
                self._renewed = asked

    async def _deadline(self) -> None:
        while (left := self._renewed + LEASE_S - self._clock.monotonic()) > 0:
            await self._clock.sleep(left)
        raise Unavailable(f"the store has not renewed this manager's lease for {LEASE_S:g} s")

    def _set(self, lease: int) -> None:
        if lease != self.lease:
            self.lease = lease
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()
