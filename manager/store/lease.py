"""Hold: a lease of the store for as long as somebody keeps it, and knows by his own clock when it is lost.

The time counts from when a renewal was sent, not from when it was answered. So the holder takes the lease for lost
before the store does, whatever happens in between, and needs no answer for that.
"""

from __future__ import annotations

import asyncio
import logging

from manager.store.base import Store
from shoal.clock import Clock
from shoal.errors import NotFound, Unavailable

log = logging.getLogger(__name__)
_RETRY_S = 0.2


class Hold:
    """`lease` is what keys are bound to."""

    def __init__(self, store: Store, lease: int, *, ttl_s: float, until: float, clock: Clock) -> None:
        self._store = store
        self._ttl_s = ttl_s
        self._until = until
        self._clock = clock
        self.lease = lease

    @classmethod
    async def take(cls, store: Store, *, ttl_s: float, clock: Clock) -> Hold:
        """A new lease of `ttl_s`; raises as `Store.grant`."""
        until = clock.monotonic() + ttl_s
        return cls(store, await store.grant(ttl_s), ttl_s=ttl_s, until=until, clock=clock)

    @property
    def left_s(self) -> float:
        """How long the lease lasts at least without another renewal; not above 0: it may have ended."""
        return self._until - self._clock.monotonic()

    async def keep(self) -> None:
        """Renew it, every third of its time, until it is lost: then this raises NotFound, at the latest when its time
        is over."""
        wait_s = self._ttl_s / 3
        while True:
            await self._clock.sleep(min(wait_s, max(0.0, self.left_s)))
            try:
                await self._renew()
                wait_s = self._ttl_s / 3
            except Unavailable as error:
                log.debug("lease %d is not renewed: %s", self.lease, error)
                wait_s = _RETRY_S
            if self.left_s <= 0:
                raise NotFound(
                    f"lease {self.lease} is lost: the store did not renew it within {self._ttl_s:g} s",
                    hint="take another",
                )

    async def release(self) -> None:
        """End it, and delete its keys, now."""
        await self._store.revoke(self.lease)

    async def _renew(self) -> None:
        """Returns without a renewal when the time is over first."""
        sent_at = self._clock.monotonic()
        renewing = asyncio.ensure_future(self._store.keep_alive(self.lease))
        ending = asyncio.ensure_future(self._clock.sleep(max(0.0, self.left_s)))
        try:
            await asyncio.wait((renewing, ending), return_when=asyncio.FIRST_COMPLETED)
            if renewing.done():
                renewing.result()
                self._until = sent_at + self._ttl_s
        finally:
            for each in (renewing, ending):
                each.cancel()
            await asyncio.gather(renewing, ending, return_exceptions=True)
