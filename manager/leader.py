"""Leader: which manager's loops decide. The key /leader, under that manager's lease, says so; its revision fences
every write.

A manager whose lease is over (`manager/control/tenure.py`) is no leader any more, and whatever it still writes fails
by the fence. The key of an earlier process of the same manager is taken over at once: its data directory admits one.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from manager.control.action import LeadershipLost
from manager.control.tenure import RETRY_S, Tenure
from manager.store.base import Conflict, Guard, Put, Store, Txn
from manager.store.mirror import Mirror
from shoal.clock import Clock
from shoal.errors import Compacted, Exhausted, NotFound, Unavailable
from shoal.tasks import first_of

log = logging.getLogger(__name__)

KEY = "/leader"


class Leader:
    """`work` runs while this manager leads, with the guard that its writes need; it must not end by itself. It begins
    with a mirror that shows all that earlier leaders wrote."""

    def __init__(
        self,
        store: Store,
        mirror: Mirror,
        tenure: Tenure,
        *,
        node_id: str,
        work: Callable[[tuple[Guard, ...]], Awaitable[None]],
        clock: Clock,
    ) -> None:
        self._store = store
        self._mirror = mirror
        self._tenure = tenure
        self._node_id = node_id
        self._work = work
        self._clock = clock
        # The node of the manager that led when this one last looked.
        self.holder = ""
        self.leads = False

    async def run(self) -> None:
        """Stand for election, for as long as the manager lives."""
        failing = False
        while True:
            lease = await self._tenure.begun()
            try:
                await first_of(self._stand(lease), self._tenure.over(lease))
                failing = False
            except (LeadershipLost, NotFound) as error:
                log.warning("not leading any more: %s", error)
            except (Exhausted, Unavailable) as error:
                if not failing:
                    log.error("cannot lead, trying again: %s", error)  # a full disk is no bug
                failing = True
            finally:
                if self.leads:
                    log.info("leads no more")
                self.leads = False
            if self._tenure.lease == lease:
                await self._clock.sleep(RETRY_S)

    async def _stand(self, lease: int) -> None:
        fence = Guard(KEY, await self._win(lease))
        self.holder = self._node_id
        await self._mirror.reached(fence.revision)
        log.info("leading revision=%d", fence.revision)
        self.leads = True
        await self._work((fence,))

    async def _win(self, lease: int) -> int:
        """The revision at which the key became ours."""
        while True:
            found = await self._store.read(KEY)
            holder = next((record for record in found.records if record.key == KEY), None)
            self.holder = holder.value.decode() if holder is not None else ""
            if self.holder in ("", self._node_id):
                guard = Guard(KEY, holder.mod_revision if holder else 0)
                try:
                    return await self._store.txn(Txn((guard,), (Put(KEY, self._node_id.encode(), lease),)))
                except Conflict:
                    continue
            await self._changed(found.revision)

    async def _changed(self, revision: int) -> None:
        try:
            async for _ in self._store.watch(KEY, after=revision):
                return
        except Compacted:
            return
