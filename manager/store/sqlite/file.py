"""The file of the embedded store: what is in it, that it is whole and nobody else's, and what its errors mean.

Tables: `kv` holds the records; `log` one row per transaction with what it changed and what was there before, so
that the watch can resume and a read can go back; `lease` and `meta` what their names say. `writer` and `reader` have
a connection each; all raise ShoalErrors: Exhausted for a full disk, Unavailable for a file that is broken.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from manager.store.base import Change, Commit
from shoal.errors import Exhausted, Unavailable, Unsupported

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


class Undo(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One change as the log keeps it. `old` is None when the key was new."""

    key: str
    new: bytes | None
    old: bytes | None
    old_mod: int
    old_created: int


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(tuple[Undo, ...]).decode


def commit_of(revision: int, undo: list[Undo] | tuple[Undo, ...]) -> Commit:
    return Commit(revision, tuple(Change(each.key, each.new, revision) for each in undo))


def revisions(connection: sqlite3.Connection, path: Path) -> tuple[int, int]:
    """The present one and the compacted one."""
    meta: dict[str, int] = dict(connection.execute("SELECT name, value FROM meta"))
    if meta.keys() != {"revision", "compacted"}:
        raise _damaged(path, "its revision is missing")
    return meta["revision"], meta["compacted"]


def connect(path: Path) -> sqlite3.Connection:
    # isolation_level None: we say BEGIN ourselves. Each connection is used by one thread at a time.
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)


def prepare(connection: sqlite3.Connection, path: Path) -> None:
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


def lock(path: Path) -> int:
    """Two writers would each keep their own index: the second one is refused. Gone with the process."""
    lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise Unavailable(f"store {path} is in use by another process", hint="stop the other manager") from error
    return lock


@contextmanager
def clearly(path: Path) -> Iterator[None]:
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
