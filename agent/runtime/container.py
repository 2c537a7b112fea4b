"""A container as the keeper's loop knows it: its record, its stdio, and who waits for what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from agent.runtime.cgroups.group import Group
from agent.runtime.journal import Journal
from agent.runtime.logfile import LogFile
from agent.runtime.mark import Mark
from agent.runtime.record import EXITED, RUNNING, STARTING, Record, Records
from agent.runtime.stdio import Stdio


class Reply(Protocol):
    """Answers one request."""

    def __call__(self, result: Any, error: BaseException | None = None) -> None: ...


class Container:
    """Without a record it is only awaited: somebody attached before its start."""

    def __init__(
        self, container_id: str, stdio: Stdio, record: Record | None = None, group: Group | None = None
    ) -> None:
        self.id = container_id
        self.stdio = stdio
        self.record = record
        self.group = group
        self.starting = False
        self.pidfd = -1
        self.waiters: list[Reply] = []
        self.deleting: list[Reply] = []

    @property
    def phase(self) -> str:
        """STARTING, RUNNING, EXITED, or "awaited"."""
        if self.starting:
            return STARTING
        if self.record is None:
            return "awaited"
        return RUNNING if self.record.exit is None else EXITED

    @property
    def awaited(self) -> bool:
        return self.phase == "awaited"

    @property
    def busy(self) -> bool:
        return bool(self.deleting) or self.phase in (STARTING, RUNNING)

    def log(self, records: Records, discard: Callable[[int], None]) -> LogFile | None:
        """Its log, if it has one. `discard` as of a `LogFile`."""
        if self.record is not None and self.record.journal:
            return Journal(self.record.journal, mark=Mark(records.path(self.id, "mark")))
        if self.record is None or not self.record.log_path:
            return None
        return LogFile(
            self.record.log_path,
            self.record.log_max_bytes,
            self.record.log_max_files,
            mark=Mark(records.path(self.id, "mark")),
            discard=discard,
        )
