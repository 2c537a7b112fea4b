"""Mirror: a view that follows the store, and tells what changed.

Fed by one read and then the watch; when the history it needs was compacted it reads again and publishes the
difference as if it had been watched (several changes of one record then come as one). It never writes.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
from collections.abc import Callable

import msgspec

from manager.store.base import Commit, Snapshot, Store
from manager.store.records import KINDS, Noun, decode, decode_as, split
from manager.store.view import View
from shoal.broadcast import Broadcast
from shoal.errors import Compacted

log = logging.getLogger(__name__)
_EVENTS_KEPT = 200_000


class MirrorEvent(msgspec.Struct, frozen=True, gc=False):
    """`old` is None for what is new, `new` for what was deleted."""

    kind: str
    id: str
    old: Noun | None
    new: Noun | None
    revision: int


class Mirror(View):
    """`changes` carries every event after it was applied to the view."""

    def __init__(self) -> None:
        super().__init__()
        self.changes: Broadcast[MirrorEvent] = Broadcast(limit=_EVENTS_KEPT)
        self._loaded = False
        self._order = itertools.count()
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []

    async def run(self, store: Store, *, prepare: Callable[[View], None] | None = None) -> None:
        """Follow `store` for ever; ends only by an error of the store or cancellation.

        `prepare` is called on the view as it was first read, in a thread: who only reads is served meanwhile, and who
        waits for a later revision waits for that too.
        """
        while True:
            await self._load(await store.read("/"))
            if prepare is not None:
                await asyncio.to_thread(prepare, self)
                prepare = None
            try:
                async for commit in store.watch("/", after=self.revision):
                    self._apply(commit)
            except Compacted as gone:
                log.warning("mirror fell behind the compaction, reading again", extra={"oldest": gone.oldest})

    async def reached(self, revision: int) -> None:
        """Return once the view is at `revision` or later; `reached(0)` waits for the first read."""
        if self._loaded and self.revision >= revision:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (revision, next(self._order), future))
        await future

    async def _load(self, snapshot: Snapshot) -> None:
        """Replace everything by what `snapshot` holds, publishing the difference."""
        changed, gone = await asyncio.to_thread(self._differing, snapshot)
        events = [
            MirrorEvent(kind, value.meta.id, self.put(value), value, value.meta.version) for kind, value in changed
        ]
        events += [MirrorEvent(kind, id, self.remove(kind, id), None, snapshot.revision) for kind, id in gone]
        self._loaded = True
        self._publish(events, snapshot.revision)

    def _differing(self, snapshot: Snapshot) -> tuple[list[tuple[str, Noun]], list[tuple[str, str]]]:
        """What `snapshot` holds otherwise than this view, and what it does not. Nothing changes a mirror but its own
        `run`, so it may be looked at from a thread."""
        seen: dict[str, set[str]] = {kind: set() for kind in KINDS}
        changed = []
        for record in snapshot.records:
            if (found := split(record.key)) is None:
                continue
            kind, id = found
            seen[kind].add(id)
            known = self.get(kind, id)
            if known is None or known.meta.version != record.mod_revision:
                changed.append((kind, decode(record)))
        return changed, [(kind, id) for kind in KINDS for id in self.all(kind) if id not in seen[kind]]

    def _apply(self, commit: Commit) -> None:
        events = []
        for change in commit.changes:
            if (found := split(change.key)) is None:
                continue
            kind, id = found
            if change.value is None:
                old, new = self.remove(kind, id), None
            else:
                new = decode_as(kind, change.value, change.mod_revision)
                old = self.put(new)
            events.append(MirrorEvent(kind, id, old, new, change.mod_revision))
        self._publish(events, commit.revision)

    def _publish(self, events: list[MirrorEvent], revision: int) -> None:
        self.revision = max(self.revision, revision)
        for event in events:
            self.changes.publish(event)
        while self._waiting and self._waiting[0][0] <= self.revision:
            future = heapq.heappop(self._waiting)[2]
            if not future.done():
                future.set_result(None)
