"""Writer: the one connection that writes, blocking, with what it must know of each key in memory.

`store` runs it in a thread of its own; what is in the file, `file` says.
"""

from __future__ import annotations

import os
import sqlite3
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from manager.store.base import Commit, Conflict, Txn
from manager.store.sqlite.file import Undo, clearly, commit_of, encode, revisions
from shoal.errors import NotFound


class Entry(msgspec.Struct, frozen=True, gc=False):
    """What the writer knows of a key without asking the disk."""

    mod: int
    created: int
    lease: int


class Writer:
    """The only writer. `txn` and its siblings are called inside `transaction()`."""

    def __init__(
        self, connection: sqlite3.Connection, path: Path, lock: int, *, keep_revisions: int, keep_bytes: int
    ) -> None:
        self._connection = connection
        self._path = path
        self._lock = lock
        self._keep_revisions = keep_revisions
        self._keep_bytes = keep_bytes
        self._commits: list[Commit] = []
        self.revision = 0
        self.compacted = 0
        self.leases: dict[int, float] = {}
        self._index: dict[str, Entry] = {}
        self._attached: dict[int, set[str]] = {}
        self._sizes: deque[tuple[int, int]] = deque()
        self._log_bytes = 0
        self._load()

    @contextmanager
    def transaction(self) -> Iterator[list[Commit]]:
        """Everything done inside becomes durable at its end, or none of it: then this raises, and the state in
        memory is read again from the file. Yields the list that the commits are appended to."""
        self._commits = []
        with clearly(self._path):
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                before = (self.revision, self.compacted)
                yield self._commits
                self._trim()
                if (self.revision, self.compacted) != before:
                    self._connection.executemany(
                        "UPDATE meta SET value = ? WHERE name = ?",
                        [(self.revision, "revision"), (self.compacted, "compacted")],
                    )
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                self._load()
                raise

    def txn(self, txn: Txn) -> int:
        """Raises Conflict and NotFound before it has changed anything."""
        stale = tuple(guard.key for guard in txn.guards if self._mod(guard.key) != guard.revision)
        if stale:
            raise Conflict(stale)
        for put in txn.puts:
            if put.lease and put.lease not in self.leases:
                raise NotFound(f"No such lease: {put.lease}", hint="it has ended; grant another")
        deletes = [key for key in txn.deletes if key in self._index]
        if not txn.puts and not deletes:
            return self.revision
        revision = self.revision + 1
        undo = [self._undo(put.key, put.value) for put in txn.puts] + [self._undo(key, None) for key in deletes]
        rows = []
        for put in txn.puts:
            known = self._index.get(put.key)
            entry = Entry(revision, known.created if known else revision, put.lease)
            rows.append((put.key, put.value, entry.mod, entry.created, entry.lease))
            self._file(put.key, entry)
        self._connection.executemany("INSERT OR REPLACE INTO kv VALUES (?, ?, ?, ?, ?)", rows)
        self._delete(deletes)
        self._record(revision, undo)
        return revision

    def grant(self, ttl_s: float) -> int:
        lease = self._connection.execute("INSERT INTO lease (ttl_s) VALUES (?)", (ttl_s,)).lastrowid
        assert lease is not None
        self.leases[lease] = ttl_s
        return lease

    def revoke(self, lease: int) -> None:
        """Delete the lease with its keys, in one revision however many they are."""
        if self.leases.pop(lease, None) is None:
            return
        self._connection.execute("DELETE FROM lease WHERE id = ?", (lease,))
        keys = sorted(self._attached.get(lease, ()))
        if keys:
            undo = [self._undo(key, None) for key in keys]
            self._delete(keys)
            self._record(self.revision + 1, undo)

    def compact(self, revision: int) -> None:
        if revision <= self.compacted:
            return
        self._connection.execute("DELETE FROM log WHERE revision <= ?", (revision,))
        while self._sizes and self._sizes[0][0] <= revision:
            self._log_bytes -= self._sizes.popleft()[1]
        self.compacted = revision

    def close(self) -> None:
        self._connection.close()
        os.close(self._lock)

    def _load(self) -> None:
        """Take what the file says for the truth."""
        execute = self._connection.execute
        self.revision, self.compacted = revisions(self._connection, self._path)
        self.leases = dict(execute("SELECT id, ttl_s FROM lease"))
        self._index, self._attached = {}, {}
        for key, *entry in execute("SELECT key, mod, created, lease FROM kv"):
            self._file(key, Entry(*entry))
        self._sizes = deque(execute("SELECT revision, length(data) FROM log ORDER BY revision"))
        self._log_bytes = sum(size for _, size in self._sizes)

    def _mod(self, key: str) -> int:
        entry = self._index.get(key)
        return entry.mod if entry else 0

    def _file(self, key: str, entry: Entry | None) -> None:
        known = self._index.get(key)
        if known and known.lease:
            self._attached.get(known.lease, set()).discard(key)
        if entry is None:
            self._index.pop(key, None)
            return
        self._index[key] = entry
        if entry.lease:
            self._attached.setdefault(entry.lease, set()).add(key)

    def _undo(self, key: str, new: bytes | None) -> Undo:
        entry = self._index.get(key)
        if entry is None:
            return Undo(key, new, None, 0, 0)
        (old,) = self._connection.execute("SELECT value FROM kv WHERE key = ?", (key,)).fetchone()
        return Undo(key, new, old, entry.mod, entry.created)

    def _delete(self, keys: list[str]) -> None:
        self._connection.executemany("DELETE FROM kv WHERE key = ?", [(key,) for key in keys])
        for key in keys:
            self._file(key, None)

    def _record(self, revision: int, undo: list[Undo]) -> None:
        data = encode(undo)
        self._connection.execute("INSERT INTO log VALUES (?, ?)", (revision, data))
        self.revision = revision
        self._sizes.append((revision, len(data)))
        self._log_bytes += len(data)
        self._commits.append(commit_of(revision, undo))

    def _trim(self) -> None:
        """Compact when the log is a tenth above its bound; the tenth keeps this from happening at each write."""
        if len(self._sizes) <= 1.1 * self._keep_revisions and self._log_bytes <= 1.1 * self._keep_bytes:
            return
        surplus, kept_bytes = len(self._sizes) - self._keep_revisions, self._log_bytes
        upto = self.compacted
        for place, (revision, size) in enumerate(self._sizes):
            if place >= surplus and kept_bytes <= self._keep_bytes:
                break
            upto, kept_bytes = revision, kept_bytes - size
        self.compact(upto)
