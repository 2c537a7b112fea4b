"""Writeback: what a pull has unpacked goes to the disk while it unpacks more. Who enters the image then has only the
rest to wait for; that all of it is there is promised by `holdings` alone, which syncs once more.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from agent.image.content import sync_filesystem
from agent.image.threads import Threads

# Less is not worth a commit of the filesystem's journal.
_LEAST_BYTES = 16 << 20


class Writeback:
    """Of one pull, whose layers are in `folder`. One sync runs at a time, as a task of `group`."""

    def __init__(self, folder: Path, group: asyncio.TaskGroup, threads: Threads) -> None:
        self._folder = folder
        self._group = group
        self._threads = threads
        self._waiting_bytes = 0
        self._writing: asyncio.Task[None] | None = None

    def unpacked(self, size_bytes: int) -> None:
        """So much lies in the folder that nobody synced."""
        self._waiting_bytes += size_bytes
        if self._waiting_bytes >= _LEAST_BYTES and (self._writing is None or self._writing.done()):
            self._waiting_bytes = 0
            self._writing = self._group.create_task(self._threads.run(lambda: sync_filesystem(self._folder)))
