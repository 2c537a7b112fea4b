"""Ledger: writes the audit record. A change and the line that tells of it are one transaction: neither is without the
other, and what cannot be recorded is not done.

All lines are one chain, so writes come one after the other; those that wait together go in one transaction. The head
is guarded: of several managers that write at once, one is told so by the store and chains its lines anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from manager.audit.chain import HEAD_KEY, HEAD_LOST, HEAD_PURPOSE, PREFIX, Head, Point, digest, key_of, number_of
from manager.store import base
from manager.store.base import Guard, Put, Record, Snapshot, Store, Txn
from shoal import codec
from shoal.clock import Clock
from shoal.errors import InvalidArgument
from shoal.model.audit import AuditEntry

log = logging.getLogger(__name__)
# Lines that go in one transaction, beside the one that tells of it and the head.
TRIM = base.MAX_OPS - 2


class Sealing(Protocol):
    """Who keeps the head from being forged (`manager.ca.authority.Seal`)."""

    def seal(self, secret: bytes, purpose: str) -> bytes: ...
    def unseal(self, sealed: bytes, purpose: str) -> bytes: ...


class _Waiting(msgspec.Struct, eq=False):
    """A transaction with its lines, and who waits for it."""

    txn: Txn
    lines: Sequence[AuditEntry]
    done: asyncio.Future[int]
    anchor: Point | None = None

    @property
    def keys(self) -> set[str]:
        """What it reads or changes."""
        changed = {put.key for put in self.txn.puts} | set(self.txn.deletes)
        return changed | {guard.key for guard in self.txn.guards}


class Ledger:
    """`number`, `at_ns` and `previous` of the lines that are given are filled in here."""

    def __init__(self, store: Store, seal: Sealing, clock: Clock) -> None:
        self._store = store
        self._seal = seal
        self._clock = clock
        self._waiting: deque[_Waiting] = deque()
        self._writing: asyncio.Task[None] | None = None
        # The head as the store has it, and the revision that wrote it; None: to be read.
        self._known: tuple[Head, int] | None = None

    async def write(self, txn: Txn, *lines: AuditEntry) -> int:
        """Do `txn` with `lines`; the revision it is durable at. Raises as `Store.txn`; one that was cancelled may have
        happened, with its lines."""
        return await self._enqueue(txn, lines)

    async def note(self, *lines: AuditEntry) -> int:
        """Lines about what is no change of the store."""
        return await self.write(Txn(), *lines)

    def opened(self, sealed: bytes) -> Head:
        """A head as the store has it. Raises InvalidArgument for one that is not of this cluster's making."""
        try:
            return msgspec.msgpack.decode(self._seal.unseal(sealed, HEAD_PURPOSE), type=Head)
        except msgspec.MsgspecError as error:
            raise InvalidArgument(f"the head of the audit record cannot be read: {error}") from error

    async def trim(self, *, keep: int, before_ns: int, line: AuditEntry) -> int:
        """Forget some of the oldest lines: those from before `before_ns`, and those beyond the newest `keep`; `line`
        tells of it. How many went: TRIM at most; when it was as many, there may be more.

        The last that went becomes the anchor, so that the rest can be verified as before.
        """
        head, _ = await self._head()
        oldest = await self._oldest()
        gone = list(itertools.takewhile(lambda record: _is_over(record, head, keep, before_ns), oldest))
        if not gone:
            return 0
        anchor = Point(number_of(gone[-1].key), digest(gone[-1].value))
        told = msgspec.structs.replace(line, object=f"{len(gone)} lines up to {anchor.number}")
        await self._enqueue(Txn((), (), tuple(record.key for record in gone)), (told,), anchor)
        return len(gone)

    async def _oldest(self) -> tuple[Record, ...]:
        """The first lines, as many as may go at once."""
        pages: Any = self._store.scan(PREFIX, limit=TRIM)
        async with contextlib.aclosing(pages):
            first: Snapshot = await anext(pages)
        return first.records

    async def _enqueue(self, txn: Txn, lines: Sequence[AuditEntry], anchor: Point | None = None) -> int:
        base.check(txn)
        waiting = _Waiting(txn, lines, asyncio.get_running_loop().create_future(), anchor)
        self._waiting.append(waiting)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._drain(), name="audit")
        return await waiting.done

    async def _drain(self) -> None:
        while self._waiting:
            batch = self._take()
            try:
                await self._commit(batch)
            except Exception as error:  # the boundary: whoever waits is told, and the next ones are written
                self._known = None
                for each in batch:
                    if not each.done.done():
                        each.done.set_exception(error)

    def _take(self) -> list[_Waiting]:
        """Those that fit in one transaction and are not in each other's way, in their order."""
        batch: list[_Waiting] = []
        keys: set[str] = set()
        ops, guards, size = 1, 1, 0
        while self._waiting:
            each = self._waiting[0]
            more = len(each.txn.puts) + len(each.txn.deletes) + len(each.lines)
            length = sum(len(put.key) + len(put.value) for put in each.txn.puts)
            if batch and (
                ops + more > base.MAX_OPS
                or guards + len(each.txn.guards) > base.MAX_GUARDS
                or size + length > base.MAX_BYTES // 2
                or not keys.isdisjoint(each.keys)
            ):
                break
            batch.append(self._waiting.popleft())
            keys |= each.keys
            ops, guards, size = ops + more, guards + len(each.txn.guards), size + length
        return batch

    async def _commit(self, batch: Sequence[_Waiting]) -> None:
        """Write what of `batch` can be, and tell all who wait."""
        while batch:
            head, revision = await self._head()
            head, txn = self._merged(batch, head, revision)
            try:
                done_at = await self._store.txn(txn)
            except base.Conflict as conflict:
                self._known = None
                batch = _undisturbed(batch, conflict)
                continue
            self._known = (head, done_at)
            for each in batch:
                if not each.done.done():
                    each.done.set_result(done_at)
            return

    def _merged(self, batch: Sequence[_Waiting], head: Head, revision: int) -> tuple[Head, Txn]:
        """One transaction of all, their lines chained to `head`; and the head after it."""
        guards = [Guard(HEAD_KEY, revision)]
        puts: list[Put] = []
        deletes: list[str] = []
        now_ns = self._clock.now_ns()
        for each in batch:
            guards += each.txn.guards
            puts += each.txn.puts
            deletes += each.txn.deletes
            for line in each.lines:
                number = head.last.number + 1
                stored = codec.pack(
                    msgspec.structs.replace(line, number=number, at_ns=now_ns, previous=head.last.digest)
                )
                puts.append(Put(key_of(number), stored))
                head = Head(Point(number, digest(stored)), _later(head.anchor, each.anchor))
        sealed = self._seal.seal(msgspec.msgpack.encode(head), HEAD_PURPOSE)
        puts.append(Put(HEAD_KEY, sealed))
        return head, Txn(tuple(dict.fromkeys(guards)), tuple(puts), tuple(deletes))

    async def _head(self) -> tuple[Head, int]:
        """The head, and the revision that wrote it (0: there is none)."""
        if self._known is None:
            found = (await self._store.read(HEAD_KEY)).records
            try:
                self._known = (self.opened(found[0].value), found[0].mod_revision) if found else await self._first(0)
            except InvalidArgument:
                self._known = await self._first(found[0].mod_revision)
        return self._known

    async def _first(self, revision: int) -> tuple[Head, int]:
        """The head where there is none of this cluster's making. Where there are lines all the same, somebody took it
        away: the record goes on after them, and says so."""
        lines = (await self._store.read(PREFIX)).records
        if not lines and not revision:
            return Head(), 0
        log.error("the head of the audit record was lost or replaced; lines may have been cut off")
        last = Point(number_of(lines[-1].key), digest(lines[-1].value)) if lines else Point()
        lost = AuditEntry(actor="manager", verb=HEAD_LOST, decision="allowed", outcome="done")
        head, txn = self._merged([_Waiting(Txn(), (lost,), asyncio.Future())], Head(last), revision)
        return head, await self._store.txn(txn)


def _later(anchor: Point, other: Point | None) -> Point:
    """Of two that trim at once, the one that was slower moves the anchor no further back."""
    return other if other is not None and other.number > anchor.number else anchor


def _is_over(record: Record, head: Head, keep: int, before_ns: int) -> bool:
    """Whether a line may go. One that cannot be read is left for `audit verify` to find, while it is not too old."""
    number = number_of(record.key)
    if number <= head.last.number - keep:
        return True
    try:
        return codec.unpack(AuditEntry, record.value).at_ns < before_ns and number < head.last.number
    except InvalidArgument:
        return False


def _undisturbed(batch: Sequence[_Waiting], conflict: base.Conflict) -> list[_Waiting]:
    """Those of a batch that can be tried again: the others are told of their conflict."""
    if HEAD_KEY in conflict.keys:
        return list(batch)  # another manager wrote a line; what else is in the way, the next try tells
    kept = []
    for each in batch:
        theirs = tuple(guard.key for guard in each.txn.guards if guard.key in conflict.keys)
        if not theirs:
            kept.append(each)
        elif not each.done.done():
            each.done.set_exception(base.Conflict(theirs))
    return kept
