"""The store of several managers: etcd behind `base.Store`. The siblings do the parts; this puts them together.

A revision is etcd's, and rises with what others do in the same etcd. Calls are bounded: a write is refused within about
3 s when most of etcd's members are away, and `trouble` then says why before the next one tries.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Sequence

from manager.store.base import Commit, Conflict, Record, Snapshot, Txn, check
from manager.store.etcd import method
from manager.store.etcd.client import Client
from manager.store.etcd.fault import COMPACTED, FUTURE
from manager.store.etcd.keyspace import Keyspace
from manager.store.etcd.pulse import Pulse
from manager.store.etcd.settings import EtcdSettings
from manager.store.etcd.transaction import waves
from manager.store.etcd.watch import watch
from manager.store.etcd.writer import Writer
from shoal.clock import Clock
from shoal.errors import Compacted, Exhausted, InvalidArgument, NotFound, ShoalError
from shoal.etcd.v3 import wire_pb2 as wire

_PAGE = 1_000
_READ_S = 10.0
_READ_ATTEMPT_S = 4.0
_OPEN_S = 5.0


class EtcdStore:
    """See `base.Store` for what each method promises. `client` is for what is no store's business: members."""

    kind = "etcd"

    def __init__(self, settings: EtcdSettings, clock: Clock) -> None:
        self._clock = clock
        self.client = Client(settings, clock)
        self._keyspace = Keyspace(settings.prefix)
        self._writer = Writer(self.client, self._keyspace)
        self._pulse = Pulse(self.client, clock)
        self._beating: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, settings: EtcdSettings, *, clock: Clock) -> EtcdStore:
        """Raises Unavailable when no endpoint answers within 5 s or etcd has no quorum, PermissionDenied when it does
        not let us in."""
        store = cls(settings, clock)
        try:
            await store.client.look(timeout_s=_OPEN_S)
        except BaseException:
            await store.close()
            raise
        store._beating = asyncio.create_task(store._pulse.run(), name="etcd-pulse")
        return store

    @property
    def trouble(self) -> str:
        if self.client.trouble:
            return self.client.trouble
        return "etcd: the database has reached its quota" if self._pulse.full else ""

    @property
    def silent_s(self) -> float:
        return self._clock.monotonic() - self.client.heard_at

    def use(self, settings: EtcdSettings) -> None:
        """Go on with other endpoints or a renewed certificate; the prefix must stay the same. Nothing is lost."""
        self.client.use(settings)

    async def txn(self, txn: Txn) -> int:
        check(txn)
        outcome = await self._written(txn)
        if isinstance(outcome, Conflict):
            raise outcome
        return outcome

    async def txn_many(self, txns: Sequence[Txn]) -> list[int | Conflict]:
        for txn in txns:
            check(txn)
        outcomes: list[int | Conflict] = [0] * len(txns)
        for wave in waves(txns):
            done = await asyncio.gather(*(self._written(txns[place]) for place in wave), return_exceptions=True)
            for place, outcome in zip(wave, done, strict=True):
                if isinstance(outcome, BaseException) and not isinstance(outcome, Conflict):
                    raise outcome
                outcomes[place] = outcome
        return outcomes

    async def read(self, prefix: str, *, revision: int = 0) -> Snapshot:
        while True:
            try:
                return await self._read(prefix, revision)
            except Compacted:
                if revision:
                    raise
                # Pages of one revision, and compaction came between them: it begins anew.

    async def scan(self, prefix: str, *, limit: int = 200) -> AsyncIterator[Snapshot]:
        async for page in self._pages(prefix, 0, limit):
            yield page

    async def watch(self, prefix: str, *, after: int) -> AsyncIterator[Commit]:
        async for commit in watch(self.client, self._keyspace, prefix, after=after, clock=self._clock):
            self._writer.saw(commit.revision)
            yield commit

    async def revision(self) -> int:
        """etcd's present one."""
        return await self.client.look()

    async def compact(self, revision: int) -> None:
        try:
            await self.client.ask(method.COMPACT, wire.CompactionRequest(revision=revision, physical=True), again=True)
        except InvalidArgument as refusal:
            if FUTURE in refusal.message:
                raise InvalidArgument(f"revision {revision} is to come") from refusal
            if COMPACTED not in refusal.message:
                raise

    async def grant(self, ttl_s: float) -> int:
        if ttl_s <= 0:
            raise InvalidArgument(f"a lease of {ttl_s} s has ended before it begins")
        # Tried again it leaves a lease that nobody keeps, and which ends.
        answer = await self.client.ask(method.LEASE_GRANT, wire.LeaseGrantRequest(ttl_s=math.ceil(ttl_s)), again=True)
        return answer.id

    async def keep_alive(self, lease: int) -> None:
        request = wire.LeaseKeepAliveRequest(id=lease)
        answer = await self.client.ask(method.LEASE_KEEP_ALIVE, request, again=True)
        if answer.ttl_s <= 0:
            raise NotFound(f"No such lease: {lease}", hint="it has ended; grant another")

    async def revoke(self, lease: int) -> None:
        with contextlib.suppress(NotFound):
            await self.client.ask(method.LEASE_REVOKE, wire.LeaseRevokeRequest(id=lease), again=True)

    async def close(self) -> None:
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)
        await self._writer.close()
        await self.client.close()

    async def _written(self, txn: Txn) -> int | Conflict:
        outcome = await self._writer.write(txn)
        if isinstance(outcome, Exhausted):
            self._pulse.full = True
        if isinstance(outcome, ShoalError) and not isinstance(outcome, Conflict):
            raise outcome
        return outcome

    async def _read(self, prefix: str, revision: int) -> Snapshot:
        records: list[Record] = []
        async for page in self._pages(prefix, revision, _PAGE):
            revision = page.revision
            records += page.records
        self._writer.saw(max((record.mod_revision for record in records), default=0))
        return Snapshot(revision, tuple(records))

    async def _pages(self, prefix: str, revision: int, limit: int) -> AsyncIterator[Snapshot]:
        begin, end = self._keyspace.full(prefix), self._keyspace.after(prefix)
        while True:
            page = await self._page(wire.RangeRequest(key=begin, range_end=end, limit=limit, revision=revision))
            revision = revision or page.header.revision
            yield Snapshot(revision, self._keyspace.records(page.kvs))
            if not page.more:
                return
            begin = page.kvs[-1].key + b"\0"

    async def _page(self, request: wire.RangeRequest) -> wire.RangeResponse:
        try:
            return await self.client.ask(
                method.RANGE, request, again=True, timeout_s=_READ_S, attempt_s=_READ_ATTEMPT_S
            )
        except InvalidArgument as refusal:
            if COMPACTED in refusal.message:
                raise Compacted(request.revision) from refusal
            if FUTURE in refusal.message:
                raise InvalidArgument(f"revision {request.revision} is to come") from refusal
            raise
