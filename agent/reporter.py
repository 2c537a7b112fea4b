"""Reporter: the last status of each task, first to the disk, then to a manager, in batches.

Runners `report`; `run` saves what is new every 50 ms; the session takes saved batches with `next_batch` and calls
`resend_all` when it has a new stream, since it cannot know what the old one still delivered. Statuses between two
batches are dropped: only the last of a task counts, and it only rises.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from shoal.clock import Clock
from shoal.errors import ShoalError
from shoal.model.task import TaskStatus

log = logging.getLogger(__name__)

BATCH_S = 0.05
BATCH_MAX = 1_000


class Reporter:
    """`save` writes statuses to the disk."""

    def __init__(self, save: Callable[[Mapping[str, TaskStatus]], Awaitable[None]], *, clock: Clock) -> None:
        self._save = save
        self._clock = clock
        self._known: dict[str, TaskStatus] = {}
        self._unsaved: dict[str, TaskStatus] = {}
        self._unsent: dict[str, TaskStatus] = {}
        self._new = asyncio.Event()
        self._sendable = asyncio.Event()
        self._save_failed = False

    def report(self, task_id: str, status: TaskStatus) -> None:
        """Save and send this, some time soon."""
        self._known[task_id] = status
        self._unsaved[task_id] = status
        self._new.set()

    def restore(self, task_id: str, status: TaskStatus) -> None:
        """A status that is on the disk already and only waits to be sent."""
        self._known[task_id] = status
        self._unsent[task_id] = status
        self._sendable.set()

    def forget(self, task_id: str) -> None:
        """The task is no longer assigned: nobody wants to hear of it."""
        for statuses in (self._known, self._unsaved, self._unsent):
            statuses.pop(task_id, None)

    def resend_all(self) -> None:
        """Everything known goes into the next batches."""
        self._unsent = {task: status for task, status in self._known.items() if task not in self._unsaved}
        if self._unsent:
            self._sendable.set()

    async def next_batch(self) -> list[tuple[str, TaskStatus]]:
        """Wait for something to send; at most 1,000 statuses, one per task."""
        while not self._unsent:
            self._sendable.clear()
            await self._sendable.wait()
        tasks = list(self._unsent)[:BATCH_MAX]
        return [(task, self._unsent.pop(task)) for task in tasks]

    async def run(self) -> None:
        """Save what is reported, for as long as the agent lives."""
        while True:
            await self._new.wait()
            await self._clock.sleep(BATCH_S)
            self._new.clear()
            batch, self._unsaved = self._unsaved, {}
            await self._save_batch(batch)
            # What was forgotten while the disk was busy stays forgotten; what rose has its own turn.
            self._unsent.update({task: status for task, status in batch.items() if self._known.get(task) == status})
            self._sendable.set()

    async def _save_batch(self, batch: Mapping[str, TaskStatus]) -> None:
        try:
            await self._save(batch)
            self._save_failed = False
        except ShoalError as error:
            # A manager that hears of it matters more than the disk: said once, then on.
            if not self._save_failed:
                log.error("cannot save task statuses: %s", error)  # the sentence is enough
            self._save_failed = True
