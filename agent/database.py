"""Database: what the agent must know after a reboot with no manager in reach. SQLite, in a thread of its own.

Assigned items by kind and key, the last status of each task with the boot of the host in which it was written,
and a few settings (address, managers, the manager process to supervise). Acknowledged means on the disk.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeAlias, TypeVar

import msgspec

from agent.assignment import KINDS, Assignment, Change, changed
from shoal.codec import pack, unpack
from shoal.errors import Exhausted, InvalidArgument, ShoalError
from shoal.files import make_private
from shoal.model.task import TaskStatus

P = ParamSpec("P")
T = TypeVar("T")
Rows: TypeAlias = Sequence[Sequence[object]]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS assigned (kind TEXT, key TEXT, value BLOB NOT NULL, PRIMARY KEY (kind, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS status (task TEXT PRIMARY KEY, boot TEXT NOT NULL, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS setting (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""


class Kept(msgspec.Struct, frozen=True):
    """The last status of a task, and the boot in which it was true."""

    status: TaskStatus
    boot: str


class Database:
    """Opened once per agent. Every call either is on the disk when it returns, or raises and changed nothing."""

    def __init__(self, connection: sqlite3.Connection, thread: ThreadPoolExecutor, boot: str) -> None:
        self._connection = connection
        self._thread = thread
        self._boot = boot

    @classmethod
    async def open(cls, path: Path, *, boot: str) -> Database:
        """The database at `path`, made when there is none. `boot` names this run of the host."""
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="agent-db")
        loop = asyncio.get_running_loop()
        try:
            connection = await loop.run_in_executor(thread, _connect, path)
        except BaseException:
            thread.shutdown(wait=False)
            raise
        return cls(connection, thread, boot)

    async def close(self) -> None:
        await self._do(self._connection.close)
        self._thread.shutdown(wait=False)

    @property
    def boot(self) -> str:
        return self._boot

    async def assignment(self) -> Assignment:
        """What was assigned last."""
        rows = await self._do(self._read, "SELECT kind, key, value FROM assigned", ())
        return changed(Assignment(), [Change(kind, key, unpack(KINDS[kind], value)) for kind, key, value in rows])

    async def replace(self, assignment: Assignment) -> None:
        """Forget what was assigned; this is all there is now."""
        await self._do(self._write, [("DELETE FROM assigned", [()]), *_puts(assignment.items())])

    async def change(self, changes: Iterable[Change]) -> None:
        await self._do(self._write, _puts(changes))

    async def statuses(self) -> dict[str, Kept]:
        rows = await self._do(self._read, "SELECT task, boot, value FROM status", ())
        return {task: Kept(unpack(TaskStatus, value), boot) for task, boot, value in rows}

    async def save_statuses(self, statuses: Mapping[str, TaskStatus]) -> None:
        rows = [(task, self._boot, pack(status)) for task, status in statuses.items()]
        await self._do(self._write, [("INSERT OR REPLACE INTO status VALUES (?, ?, ?)", rows)])

    async def forget_status(self, task_id: str) -> None:
        await self._do(self._write, [("DELETE FROM status WHERE task = ?", [(task_id,)])])

    async def setting(self, name: str) -> str:
        """The value, or "" where there is none."""
        rows = await self._do(self._read, "SELECT value FROM setting WHERE name = ?", (name,))
        return str(rows[0][0]) if rows else ""

    async def set(self, name: str, value: str) -> None:
        """An empty value removes the setting."""
        if value:
            await self._do(self._write, [("INSERT OR REPLACE INTO setting VALUES (?, ?)", [(name, value)])])
        else:
            await self._do(self._write, [("DELETE FROM setting WHERE name = ?", [(name,)])])

    async def clear(self) -> None:
        """Forget everything: this host is no longer a member."""
        tables = ("assigned", "status", "setting")
        await self._do(self._write, [(f"DELETE FROM {table}", [()]) for table in tables])

    async def _do(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: _told(work, *args, **kwargs))

    def _read(self, sql: str, values: tuple[str, ...]) -> list[tuple[str, str, bytes]]:
        return self._connection.execute(sql, values).fetchall()

    def _write(self, statements: list[tuple[str, Rows]]) -> None:
        with self._connection:
            for sql, rows in statements:
                self._connection.executemany(sql, [tuple(row) for row in rows])


def _connect(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o711)
    make_private(path)
    return _told(_prepare, path)


def _prepare(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, check_same_thread=False, timeout=10)
    connection.execute("PRAGMA journal_mode=WAL")
    # NORMAL would lose the last assignments when the power goes (sqlite.org/pragma.html#pragma_synchronous).
    connection.execute("PRAGMA synchronous=FULL")
    connection.executescript(_SCHEMA)
    return connection


def _puts(changes: Iterable[Change]) -> list[tuple[str, Rows]]:
    # Of several changes of one item the last counts, whichever kind it is.
    changes = {(each.kind, each.key): each for each in changes}.values()
    gone = [(each.kind, each.key) for each in changes if each.value is None]
    new = [(each.kind, each.key, pack(each.value)) for each in changes if each.value is not None]
    return [
        ("DELETE FROM assigned WHERE kind = ? AND key = ?", gone),
        ("INSERT OR REPLACE INTO assigned VALUES (?, ?, ?)", new),
    ]


def _told(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """SQLite's errors as sentences."""
    try:
        return work(*args, **kwargs)
    except sqlite3.OperationalError as error:
        if "full" in str(error):
            raise Exhausted("the agent's database cannot grow: the disk is full", hint="free some space") from error
        raise ShoalError(f"the agent's database failed: {error}") from error
    except sqlite3.DatabaseError as error:
        raise InvalidArgument(
            f"the agent's database is damaged: {error}",
            hint="move agent.db away and start again; a manager sends what is assigned anew",
        ) from error
