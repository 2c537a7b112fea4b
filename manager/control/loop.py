"""Loop: runs all controllers, on the leader, from the mirror's events. The only place where decisions meet time.

Controllers run in their order, each over the keys that wait for it; what one of them decides is committed, and
the mirror has caught up with it, before the next one looks: so every decision sees those made before it, and one
round takes a change all the way. A key that conflicts, or fails, is tried again; the others do not wait for it.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Iterable, Sequence
from itertools import islice

from manager.control.action import Action, LeadershipLost, commit
from manager.control.controller import Controller, Finish, Mint
from manager.store.base import Guard, Store
from manager.store.mirror import Mirror, MirrorEvent
from manager.store.records import KINDS
from shoal.backoff import Backoff
from shoal.broadcast import Lagged, Subscription
from shoal.clock import Clock
from shoal.errors import ShoalError
from shoal.ids import new_ids

log = logging.getLogger(__name__)
# Actions decided before they are committed, and for how long at most: keeps the daemon answering meanwhile.
_SLICE = 1000
_SLICE_S = 0.02
_CONFLICT_NS = 20_000_000
_FAILED_NS = 5_000_000_000


class Loop:
    """`fence` is the leader's key: every write is guarded by it. What is decided together passes through `finish`."""

    def __init__(
        self,
        store: Store,
        mirror: Mirror,
        controllers: Sequence[Controller],
        *,
        clock: Clock,
        fence: tuple[Guard, ...] = (),
        finish: Finish | None = None,
    ) -> None:
        self._store = store
        self._mirror = mirror
        self._controllers = controllers
        self._clock = clock
        self._fence = fence
        self._finish = finish
        self._due: list[dict[str, None]] = [{} for _ in controllers]
        self._interested: dict[str, list[tuple[dict[str, None], Controller]]] = {}
        for due, controller in zip(self._due, controllers, strict=True):
            for kind in controller.kinds:
                self._interested.setdefault(kind, []).append((due, controller))
        self._timers = Timers()
        self._backoff = Backoff(0.1, 5)
        self._failing = False

    async def run(self) -> None:
        """Decide for ever. Ends by LeadershipLost or cancellation; what was decided but not committed is lost,
        and decided anew by whoever leads next."""
        with self._mirror.changes.subscribe() as events:
            await self._mirror.reached(0)
            await self._look_at_everything()
            while True:
                await self._round(events)
                await self._wait(events)

    async def _round(self, events: Subscription[MirrorEvent]) -> None:
        """Until no key is due."""
        while True:
            await self._take(events)
            stage = next((index for index, keys in enumerate(self._due) if keys), None)
            if stage is None:
                return
            try:
                await self._step(stage)
            except LeadershipLost:
                raise
            except ShoalError as error:
                if not self._failing:
                    log.warning("decisions cannot be written, trying again: %s", error)
                self._failing = True
                await self._clock.sleep(self._backoff.next())
            else:
                if self._failing:
                    log.info("decisions are written again")
                self._failing = False
                self._backoff.reset()

    async def _step(self, stage: int) -> None:
        """Decide for some of a controller's keys, write it, and wait until the mirror shows it."""
        decided: dict[str, int] = {}
        actions: list[Action] = []
        end = self._clock.monotonic() + _SLICE_S
        for key in list(self._due[stage]):
            actions += (found := self._decide(stage, key))
            decided[key] = len(found)
            if len(actions) >= _SLICE or self._clock.monotonic() >= end:
                break
        if not actions:
            self._forget(stage, decided)
            await asyncio.sleep(0)
            return
        actions = self._finished(actions)
        done = await commit(self._store, actions, self._fence)
        if done.conflicts:
            self._decide_anew(stage, decided, actions, done.conflicts)
        self._forget(stage, decided)
        await self._mirror.reached(done.revision)

    def _finished(self, actions: list[Action]) -> list[Action]:
        if self._finish is None:
            return actions
        try:
            return self._finish(self._mirror, actions, self._clock.now_ns())
        except (
            Exception
        ):  # boundary: a bug in what only saves writes must not hold up decisions, which hold as they are
            log.exception("what was decided is written unfinished")
            return actions

    def _decide_anew(
        self, stage: int, decided: dict[str, int], actions: Sequence[Action], conflicts: Iterable[Action]
    ) -> None:
        """Look again at the keys some of whose actions were not written; `actions` are those of all, in order."""
        lost = set(map(id, conflicts))
        rest = iter(actions)
        for key, count in decided.items():
            theirs = list(islice(rest, count))
            if any(id(action) in lost for action in theirs):
                self._timers.at_most(stage, key, self._ticks_ns() + _CONFLICT_NS)

    def _forget(self, stage: int, keys: Iterable[str]) -> None:
        for key in keys:
            del self._due[stage][key]

    def _decide(self, stage: int, key: str) -> list[Action]:
        controller = self._controllers[stage]
        now_ns = self._clock.now_ns()
        try:
            decision = controller.reconcile(self._mirror, key, now_ns, _minting())
        except Exception:  # boundary: deciders are pure, so this is a bug for one key, and must not stop the cluster
            log.exception("controller %s failed on %s; it is left as it is for now", controller.name, key)
            self._timers.set(stage, key, self._ticks_ns() + _FAILED_NS)
            return []
        # The wait is kept, not the time of day: a clock that is set back must not make it an hour longer.
        at_ns = decision.requeue_at_ns
        self._timers.set(stage, key, None if at_ns is None else self._ticks_ns() + at_ns - now_ns)
        return list(decision.actions)

    async def _take(self, events: Subscription[MirrorEvent]) -> None:
        """Queue the keys of what has happened, and of the timers that are due."""
        try:
            await self._queue(events.drain())
        except Lagged:
            await self._look_at_everything()
        for stage, key in self._timers.due(self._ticks_ns()):
            self._due[stage][key] = None

    def _ticks_ns(self) -> int:
        """The time of the timers, which never jumps."""
        return int(self._clock.monotonic() * 1e9)

    async def _look_at_everything(self) -> None:
        """Each record as if it had just come. What changes meanwhile comes as an event besides."""
        for kind in KINDS:
            known = list(self._mirror.all(kind).items())
            await self._queue(MirrorEvent(kind, id, None, value, value.meta.version) for id, value in known)

    async def _queue(self, events: Iterable[MirrorEvent]) -> None:
        """In parts, so that a leader that has a million tasks to look at is heard of in between."""
        for number, event in enumerate(events, 1):
            for due, controller in self._interested.get(event.kind, ()):
                for key in controller.keys_for(event, self._mirror):
                    due[key] = None
            if number % _SLICE == 0:
                await asyncio.sleep(0)

    async def _wait(self, events: Subscription[MirrorEvent]) -> None:
        """Until something happens or a timer is due."""
        waits: list[asyncio.Future[None]] = [asyncio.ensure_future(events.wait())]
        if (at_ns := self._timers.next_ns()) is not None:
            waits.append(asyncio.ensure_future(self._clock.sleep(max(0, at_ns - self._ticks_ns()) / 1e9)))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()


class Timers:
    """When to look at which key again, by a clock that never jumps; one time per key."""

    def __init__(self) -> None:
        self._at: dict[tuple[int, str], int] = {}
        self._heap: list[tuple[int, int, str]] = []

    def set(self, stage: int, key: str, at_ns: int | None) -> None:
        """Instead of what was set before; None: never."""
        if at_ns is None:
            self._at.pop((stage, key), None)
            return
        self._at[stage, key] = at_ns
        heapq.heappush(self._heap, (at_ns, stage, key))

    def at_most(self, stage: int, key: str, at_ns: int) -> None:
        """Not later than this."""
        self.set(stage, key, min(at_ns, self._at.get((stage, key), at_ns)))

    def next_ns(self) -> int | None:
        while self._heap and self._stale(*self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def due(self, now_ns: int) -> Iterable[tuple[int, str]]:
        """Those whose time has come; each is told once."""
        while (at_ns := self.next_ns()) is not None and at_ns <= now_ns:
            _, stage, key = heapq.heappop(self._heap)
            del self._at[stage, key]
            yield stage, key

    def _stale(self, at_ns: int, stage: int, key: str) -> bool:
        return self._at.get((stage, key)) != at_ns


def _minting() -> Mint:
    """Fresh ids, a hundred at a time."""
    stock: list[str] = []

    def mint() -> str:
        if not stock:
            stock.extend(new_ids(100))
        return stock.pop()

    return mint
