"""Reader: consistent reads beside the writer, blocking: each sees one committed state. `store` runs it in a thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from manager.store.base import Commit, Record, Snapshot
from manager.store.sqlite.file import clearly, commit_of, connect, decode, revisions
from shoal.errors import Compacted

_SELECT = "SELECT key, value, mod, created FROM kv WHERE key >= ? AND key < ? ORDER BY key"
_LAST = "\U0010ffff"  # sorts after everything that a key may go on with


class Reader:
    """Of the file at `path`."""

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
        with clearly(self._path), closing(connect(self._path)) as connection:
            connection.execute("BEGIN")
            revision, _ = revisions(connection, self._path)
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
            return [commit_of(revision, decode(data)) for revision, data in rows]

    def close(self) -> None:
        self._connection.close()

    def _undone(self, prefix: str, records: list[Record], revision: int) -> tuple[Record, ...]:
        """Take back, newest first, what was changed after `revision`."""
        found = {record.key: record for record in records}
        rows = self._connection.execute("SELECT data FROM log WHERE revision > ? ORDER BY revision DESC", (revision,))
        for (data,) in rows:
            for undo in decode(data):
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
        with clearly(self._path):
            self._connection.execute("BEGIN")
            try:
                yield revisions(self._connection, self._path)
            finally:
                self._connection.execute("COMMIT")
