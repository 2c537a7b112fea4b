"""The file behind the embedded store: one connection that writes, one that reads, both blocking.

Tables: `kv` holds the records; `log` one row per transaction with what it changed and what was there before, so
that the watch can resume and a read can go back; `lease` and `meta` what their names say. `sqlite` runs this in
its threads. All methods raise ShoalErrors: Exhausted for a full disk, Unavailable for a file that is broken.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from manager.store.base import Change, Commit, Conflict, Record, Snapshot, Txn
from shoal.errors import Compacted, Exhausted, NotFound, Unavailable, Unsupported
from shoal.files import make_private

SCHEMA_VERSION = 1
_SCHEMA = f"""
BEGIN;
CREATE TABLE kv (key TEXT PRIMARY KEY, value BLOB NOT NULL, mod INTEGER NOT NULL, created INTEGER NOT NULL,
                 lease INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE log (revision INTEGER PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE lease (id INTEGER PRIMARY KEY AUTOINCREMENT, ttl_s REAL NOT NULL);
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES ('revision', 0), ('compacted', 0);
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""
_TABLES = {"kv", "log", "lease", "meta"}
_SELECT = "SELECT key, value, mod, created FROM kv WHERE key >= ? AND key < ? ORDER BY key"
_LAST = "\U0010ffff"  # sorts after everything that a key may go on with


class Entry(msgspec.Struct, frozen=True, gc=False):
    """What the writer knows of a key without asking the disk."""

    mod: int
    created: int
    lease: int


class Undo(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One change as the log keeps it. `old` is None when the key was new."""

    key: str
    new: bytes | None
    old: bytes | None
    old_mod: int
    old_created: int


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[Undo, ...]).decode


def opened(path: Path, *, keep_revisions: int, keep_bytes: int) -> tuple[Writer, Reader]:
    """Both connections of a file that is whole and nobody else's; made if it is not there."""
    with _clearly(path):
        make_private(path)
        lock = _lock(path)
    try:
        with _clearly(path):
            connection = _connect(path)
            _prepare(connection, path)
            writer = Writer(connection, path, lock, keep_revisions=keep_revisions, keep_bytes=keep_bytes)
            return writer, Reader(_connect(path), path)
    except BaseException:
        os.close(lock)
        raise


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
        with _clearly(self._path):
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
        self.revision, self.compacted = _revisions(self._connection, self._path)
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
        data = _encode(undo)
        self._connection.execute("INSERT INTO log VALUES (?, ?)", (revision, data))
        self.revision = revision
        self._sizes.append((revision, len(data)))
        self._log_bytes += len(data)
        self._commits.append(_commit(revision, undo))

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


class Reader:
    """Consistent reads beside the writer: each sees one committed state."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    def read(self, prefix: str, revision: int) -> Snapshot:
        with self._state() as (now, compacted):
            rows = self._connection.execute(_SELECT, (prefix, prefix + _LAST))
            records = [Record(*row) for row in rows]
            if not revision or revision == now:
                return Snapshot(now, tuple(records))
            if revision < compacted:
                raise Compacted(revision, compacted)
            return Snapshot(revision, self._undone(prefix, records, revision))

    def scan(self, prefix: str, limit: int) -> Generator[Snapshot, None, None]:
        """The records of now, in parts. Its own connection holds that state until the end, whatever is written."""
        with _clearly(self._path), closing(_connect(self._path)) as connection:
            connection.execute("BEGIN")
            revision, _ = _revisions(connection, self._path)
            rows = connection.execute(_SELECT, (prefix, prefix + _LAST))
            part = rows.fetchmany(limit)
            while True:
                yield Snapshot(revision, tuple(Record(*row) for row in part))
                if not (part := rows.fetchmany(limit)):
                    return

    def log(self, after: int, limit: int) -> list[Commit]:
        """The `limit` commits that follow `after`."""
        with self._state() as (_, compacted):
            if after < compacted:
                raise Compacted(after, compacted + 1)
            rows = self._connection.execute(
                "SELECT revision, data FROM log WHERE revision > ? ORDER BY revision LIMIT ?", (after, limit)
            )
            return [_commit(revision, _decode(data)) for revision, data in rows]

    def close(self) -> None:
        self._connection.close()

    def _undone(self, prefix: str, records: list[Record], revision: int) -> tuple[Record, ...]:
        """Take back, newest first, what was changed after `revision`."""
        found = {record.key: record for record in records}
        rows = self._connection.execute("SELECT data FROM log WHERE revision > ? ORDER BY revision DESC", (revision,))
        for (data,) in rows:
            for undo in _decode(data):
                if not undo.key.startswith(prefix):
                    continue
                if undo.old is None:
                    found.pop(undo.key, None)
                else:
                    found[undo.key] = Record(undo.key, undo.old, undo.old_mod, undo.old_created)
        return tuple(found[key] for key in sorted(found))

    @contextmanager
    def _state(self) -> Iterator[tuple[int, int]]:
        """One snapshot of the file: its revision, and the compacted one."""
        with _clearly(self._path):
            self._connection.execute("BEGIN")
            try:
                yield _revisions(self._connection, self._path)
            finally:
                self._connection.execute("COMMIT")


def _revisions(connection: sqlite3.Connection, path: Path) -> tuple[int, int]:
    """The present one and the compacted one."""
    meta: dict[str, int] = dict(connection.execute("SELECT name, value FROM meta"))
    if meta.keys() != {"revision", "compacted"}:
        raise _damaged(path, "its revision is missing")
    return meta["revision"], meta["compacted"]


def _commit(revision: int, undo: list[Undo] | tuple[Undo, ...]) -> Commit:
    return Commit(revision, tuple(Change(each.key, each.new, revision) for each in undo))


def _connect(path: Path) -> sqlite3.Connection:
    # isolation_level None: we say BEGIN ourselves. Each connection is used by one thread at a time.
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Check the file, or make it."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise Unsupported(
            f"store {path} has schema {version}, this program knows {SCHEMA_VERSION}",
            hint="start the version of shoal that wrote it",
        )
    # quick_check skips only the comparison of indexes with tables, and we have no index.
    problems = [row[0] for row in connection.execute("PRAGMA quick_check(3)") if row[0] != "ok"]
    if problems:
        raise _damaged(path, "; ".join(problems))
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if version and not tables >= _TABLES:
        raise _damaged(path, f"it lacks {', '.join(sorted(_TABLES - tables))}")
    if not version and tables:
        raise Unavailable(f"{path} is a database of another program", hint="choose another directory")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    if version == 0:
        connection.executescript(_SCHEMA)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _lock(path: Path) -> int:
    """Two writers would each keep their own index: the second one is refused. Gone with the process."""
    lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise Unavailable(f"store {path} is in use by another process", hint="stop the other manager") from error
    return lock


@contextmanager
def _clearly(path: Path) -> Iterator[None]:
    """What SQLite and the system say, as sentences."""
    try:
        yield
    except sqlite3.Error as error:
        _explain(path, error)
    except msgspec.DecodeError as error:
        raise _damaged(path, str(error)) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_space(path) from error
        raise Unavailable(f"store {path} cannot be opened: {error.strerror}") from error


def _explain(path: Path, error: sqlite3.Error) -> NoReturn:
    name: Any = getattr(error, "sqlite_errorname", "") or ""
    if name == "SQLITE_FULL" or (name.startswith("SQLITE_IOERR") and _full(path)):
        raise _no_space(path) from error
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        raise _damaged(path, str(error)) from error
    raise Unavailable(f"store {path}: {error} ({name or type(error).__name__})") from error


def _no_space(path: Path) -> Exhausted:
    return Exhausted(f"store {path}: the disk is full", hint="free some space; nothing is lost")


def _full(path: Path) -> bool:
    room = os.statvfs(path.parent)
    return room.f_bavail * room.f_frsize < 1 << 20


def _damaged(path: Path, why: str) -> Unavailable:
    return Unavailable(f"store {path} is damaged: {why}", hint="restore it from a backup")
