"""The embedded store: SQLite for a single manager, with its threads and leases.

One thread writes. It takes all transactions that wait, checks their guards against an index in memory, writes
records and one log row per transaction, and commits them together (WAL, synchronous=FULL): what was acknowledged
survives kill -9 and power loss. Only after the COMMIT do callers hear of it and does the watch see it. The watch
reads a ring in memory, and the log table for what is older. A lease's deadline is kept in memory and begins anew
when the store is opened, so a restart never ends one early.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from manager.store.base import Change, Commit, Conflict, Snapshot, Txn, check
from manager.store.sqlite.file import clearly, connect, lock, prepare
from manager.store.sqlite.reader import Reader
from manager.store.sqlite.writer import Writer
from shoal.clock import Clock
from shoal.errors import Compacted, InvalidArgument, NotFound, ShoalError, Unavailable
from shoal.files import make_private

log = logging.getLogger(__name__)
T = TypeVar("T")
_RING = 1024
_PAGE = 500
_GROUP = 256
_RETRY_S = 1.0


class _Request:
    """One thing for the writer to do, and the future that hears of it."""

    __slots__ = ("future", "work")

    def __init__(self, work: Callable[[Writer], object], future: asyncio.Future[object]) -> None:
        self.work = work
        self.future = future


class SqliteStore:
    """See `base.Store` for what each method promises."""

    kind = "sqlite"

    def __init__(self, writer: Writer, reader: Reader, clock: Clock) -> None:
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._reader = reader
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="store-read")
        self._revision = writer.revision
        self._compacted = writer.compacted
        self._ring: list[Commit] = []
        self._moved = asyncio.Event()
        self._closed = False
        self._broken: BaseException | None = None
        self._failed: tuple[str, float] | None = None
        self._deadlines = {id: clock.monotonic() + ttl_s for id, ttl_s in writer.leases.items()}
        self._ttls = dict(writer.leases)
        self._lease_news = asyncio.Event()
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write_forever, args=(writer,), name="store-write", daemon=True)
        self._thread.start()
        self._expiry = self._loop.create_task(self._expire_forever(), name="store-leases")

    @classmethod
    async def open(
        cls, path: Path, *, clock: Clock, keep_revisions: int = 10_000, keep_bytes: int = 64 << 20
    ) -> SqliteStore:
        """Open or create the file, after checking that it is whole. The log keeps at least the last
        `keep_revisions` transactions, or `keep_bytes` of them if that is less.

        Raises Unavailable for a file that is damaged, in use, or no database; Unsupported for a newer schema.
        """
        writer, reader = await asyncio.to_thread(_opened, path, keep_revisions=keep_revisions, keep_bytes=keep_bytes)
        return cls(writer, reader, clock)

    @property
    def trouble(self) -> str:
        """A write that failed is tried again a second later: only so is it found that the disk has room again."""
        if self._closed:
            return "the store is closed"
        if self._broken is not None:
            return f"the store's writer has ended: {self._broken!r}"
        if self._failed is not None and self._clock.monotonic() < self._failed[1] + _RETRY_S:
            return self._failed[0]
        return ""

    @property
    def silent_s(self) -> float:
        return 0.0

    async def txn(self, txn: Txn) -> int:
        check(txn)
        return await self._ask(_doing(txn))

    async def txn_many(self, txns: Sequence[Txn]) -> list[int | Conflict]:
        for txn in txns:
            check(txn)
        results = await asyncio.gather(*(self._ask(_doing(txn)) for txn in txns), return_exceptions=True)
        failures = [each for each in results if isinstance(each, BaseException) and not isinstance(each, Conflict)]
        if failures:
            raise failures[0]
        return [each if isinstance(each, int | Conflict) else 0 for each in results]

    async def read(self, prefix: str, *, revision: int = 0) -> Snapshot:
        if revision > self._revision:
            raise InvalidArgument(f"revision {revision} is to come; the store is at {self._revision}")
        return await self._in_reader(lambda reader: reader.read(prefix, revision))

    async def scan(self, prefix: str, *, limit: int = 200) -> AsyncIterator[Snapshot]:
        parts = await self._in_reader(lambda reader: reader.scan(prefix, limit))
        try:
            while (part := await self._in_reader(lambda _reader: next(parts, None))) is not None:
                yield part
        finally:
            if not self._closed:
                await self._in_reader(lambda _reader: parts.close())

    async def watch(self, prefix: str, *, after: int) -> AsyncIterator[Commit]:
        cursor = after
        while True:
            self._check_open()
            moved = self._moved
            for commit in await self._commits(cursor):
                cursor = commit.revision
                if prefix == "/" or any(change.key.startswith(prefix) for change in commit.changes):
                    yield _under(prefix, commit)
            if cursor >= self._revision:
                await moved.wait()

    async def compact(self, revision: int) -> None:
        if revision > self._revision:
            raise InvalidArgument(f"revision {revision} is to come; the store is at {self._revision}")
        await self._ask(lambda writer: writer.compact(revision))

    async def grant(self, ttl_s: float) -> int:
        if ttl_s <= 0:
            raise InvalidArgument(f"a lease of {ttl_s} s has ended before it begins")
        # Shielded: a lease that nobody waits for any more must still get its deadline, or it would never end.
        return await asyncio.shield(self._grant(ttl_s))

    async def keep_alive(self, lease: int) -> None:
        self._check_open()
        now = self._clock.monotonic()
        if self._deadlines.get(lease, now) <= now:
            raise NotFound(f"No such lease: {lease}", hint="it has ended; grant another")
        self._deadlines[lease] = now + self._ttls[lease]

    async def revoke(self, lease: int) -> None:
        await self._ask(lambda writer: writer.revoke(lease))
        self._deadlines.pop(lease, None)
        self._ttls.pop(lease, None)

    async def close(self) -> None:
        """Finish what is queued, then let go of the file."""
        if self._closed:
            return
        self._closed = True
        self._expiry.cancel()
        self._requests.put(None)
        await asyncio.to_thread(self._thread.join)
        await self._loop.run_in_executor(self._reading, self._reader.close)
        self._reading.shutdown()
        self._moved.set()

    async def _grant(self, ttl_s: float) -> int:
        lease = await self._ask(lambda writer: writer.grant(ttl_s))
        self._ttls[lease] = ttl_s
        self._deadlines[lease] = self._clock.monotonic() + ttl_s
        self._lease_news.set()
        return lease

    async def _ask(self, work: Callable[[Writer], T]) -> T:
        self._check_open()
        future: asyncio.Future[T] = self._loop.create_future()
        self._requests.put(_Request(work, future))  # type: ignore[arg-type]
        return await future

    async def _in_reader(self, work: Callable[[Reader], T]) -> T:
        self._check_open()
        return await self._loop.run_in_executor(self._reading, work, self._reader)

    def _check_open(self) -> None:
        if self._closed or self._broken is not None:
            raise Unavailable(self.trouble) from self._broken

    async def _commits(self, after: int) -> list[Commit]:
        """Some of the commits above `after`, the next one first; empty when there is none yet."""
        if after < self._compacted:
            raise Compacted(after, self._compacted + 1)
        if self._ring and self._ring[0].revision <= after + 1:
            start = after + 1 - self._ring[0].revision  # every revision has its commit, so places can be counted
            return self._ring[start : start + _PAGE]
        if after >= self._revision:
            return []
        return await self._in_reader(lambda reader: reader.log(after, _PAGE))

    async def _expire_forever(self) -> None:
        while True:
            self._lease_news.clear()
            wait_s = min(self._deadlines.values(), default=float("inf")) - self._clock.monotonic()
            if wait_s > 0:
                await self._sleep(wait_s)
                continue
            now = self._clock.monotonic()
            try:
                for lease in [lease for lease, deadline in self._deadlines.items() if deadline <= now]:
                    await self.revoke(lease)
            except ShoalError as error:
                log.warning("a lease has ended but its keys cannot be deleted yet: %s", error)
                await self._clock.sleep(_RETRY_S)

    async def _sleep(self, seconds: float) -> None:
        """Until then, or until there is another lease to think of."""
        waits: list[asyncio.Future[object]] = [asyncio.ensure_future(self._lease_news.wait())]
        if seconds != float("inf"):
            waits.append(asyncio.ensure_future(self._clock.sleep(seconds)))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _write_forever(self, writer: Writer) -> None:
        """The writer thread. Only here is `writer` touched."""
        group: list[_Request | None] = []
        try:
            while True:
                group = self._waiting()
                if requests := [request for request in group if request is not None]:
                    self._write(writer, requests)
                if None in group:
                    break
        except BaseException as error:  # a thread has nobody above it: those who wait must hear, and the mirror
            self._tell(self._break, error, group)
        finally:
            writer.close()

    def _waiting(self) -> list[_Request | None]:
        """All requests there are, at least one; None is the last one's sign."""
        group = [self._requests.get()]
        while group[-1] is not None and len(group) < _GROUP and not self._requests.empty():
            group.append(self._requests.get())
        return group

    def _write(self, writer: Writer, group: list[_Request]) -> None:
        outcomes: list[object] = []
        commits: list[Commit] = []
        try:
            with writer.transaction() as commits:
                for request in group:
                    try:
                        outcomes.append(request.work(writer))
                    except (Conflict, NotFound) as refused:
                        outcomes.append(refused)
        except ShoalError as error:
            self._tell(self._fail, group, error, writer.revision, writer.compacted)
        else:
            self._tell(self._settle, group, outcomes, commits, writer.revision, writer.compacted)

    def _tell(self, callback: Callable[..., None], *args: object) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback, *args)

    def _settle(
        self,
        group: list[_Request],
        outcomes: list[object],
        commits: list[Commit],
        revision: int,
        compacted: int,
    ) -> None:
        """On the event loop: the group is durable."""
        self._failed = None
        self._revision, self._compacted = revision, compacted
        self._ring += commits
        if len(self._ring) > 2 * _RING:
            del self._ring[:-_RING]
        for request, outcome in zip(group, outcomes, strict=True):
            if request.future.done():
                continue
            if isinstance(outcome, ShoalError):
                request.future.set_exception(outcome)
            else:
                request.future.set_result(outcome)
        if commits:
            self._wake()

    def _fail(self, group: list[_Request], error: BaseException, revision: int, compacted: int) -> None:
        """On the event loop: nothing of the group was done; or, after an I/O error, who knows: the watch then
        continues from the log."""
        self._failed = str(error), self._clock.monotonic()
        self._revision, self._compacted = revision, compacted
        self._ring.clear()
        for request in group:
            if not request.future.done():
                request.future.set_exception(error)
        self._wake()

    def _break(self, error: BaseException, group: list[_Request | None]) -> None:
        """On the event loop: the writer thread is dead."""
        self._broken = error
        while not self._requests.empty():
            group.append(self._requests.get())
        broken = Unavailable(f"the store's writer has ended: {error!r}")
        broken.__cause__ = error
        self._fail([each for each in group if each is not None], broken, self._revision, self._compacted)

    def _wake(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()


def _doing(txn: Txn) -> Callable[[Writer], int]:
    return lambda writer: writer.txn(txn)


def _under(prefix: str, commit: Commit) -> Commit:
    if all(change.key.startswith(prefix) for change in commit.changes):
        return commit
    kept: tuple[Change, ...] = tuple(change for change in commit.changes if change.key.startswith(prefix))
    return Commit(commit.revision, kept)


def _opened(path: Path, *, keep_revisions: int, keep_bytes: int) -> tuple[Writer, Reader]:
    """Both connections of a file that is whole and nobody else's; made if it is not there."""
    with clearly(path):
        make_private(path)
        locked = lock(path)
    try:
        with clearly(path):
            connection = connect(path)
            prepare(connection, path)
            writer = Writer(connection, path, locked, keep_revisions=keep_revisions, keep_bytes=keep_bytes)
            return writer, Reader(connect(path), path)
    except BaseException:
        os.close(locked)
        raise
