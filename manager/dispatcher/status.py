"""Status: what agents report of tasks, on its way to the store.

A task's state only rises, so between two writes the last report of each task is enough: reports are coalesced and
written in batches every 50 ms. A write that lost against the leader's (both change the same record) is made again
on what the leader wrote. Nothing is acknowledged: an agent says everything again in its next session.

So what is still to be written when the node is in a session with another manager is dropped: that one hears it too,
and newer things. It writes first that it holds the node, so that a view with a newer status shows that as well.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

import msgspec

from manager.control.action import Put, change, commit, touched
from manager.dispatcher.judgement import is_elsewhere
from manager.store.base import Store
from manager.store.mirror import Mirror
from shoal.clock import Clock
from shoal.errors import Exhausted, InvalidArgument, PermissionDenied, Unavailable
from shoal.model.task import Task, TaskState, TaskStatus

log = logging.getLogger(__name__)

BATCH_S = 0.05
_RETRY_S = 1.0
_MAX_TEXT = 4096


class StatusWriter:
    """Of the manager on the node `own_id`. `report` never waits; `run` writes."""

    def __init__(self, *, store: Store, mirror: Mirror, clock: Clock, own_id: str) -> None:
        self._store = store
        self._mirror = mirror
        self._clock = clock
        self._own_id = own_id
        self._pending: dict[str, TaskStatus] = {}
        self._new = asyncio.Event()
        self._failing = False

    def report(self, node_id: str, task_id: str, status: TaskStatus) -> None:
        """Note what the agent of `node_id` says of a task.

        A task that is no longer known is ignored: it is not in the node's assignment, which tells the agent.
        Raises PermissionDenied for another node's task, InvalidArgument for a state that no agent may report.
        """
        task = self._mirror.tasks.get(task_id)
        if task is None:
            return
        if task.node_id != node_id:
            raise PermissionDenied(f"task {task_id} is not on node {node_id}, which may not report it")
        if not TaskState.ACCEPTED <= status.state <= TaskState.REJECTED:
            raise InvalidArgument(f"task {task_id}: an agent cannot report the state {status.state.name}")
        waiting = self._pending.get(task_id)
        if waiting is None or status.state >= waiting.state:
            self._pending[task_id] = _bounded(status)
            self._new.set()

    async def run(self) -> None:
        """Write what is reported, for as long as the manager lives."""
        while True:
            await self._new.wait()
            await self._clock.sleep(BATCH_S)
            self._new.clear()
            try:
                await self.flush()
                self._failing = False
            except (Exhausted, Unavailable) as error:
                if not self._failing:
                    log.error("cannot write task statuses, trying again: %s", error)  # a full disk is no bug
                self._failing = True
                await self._clock.sleep(_RETRY_S)

    async def flush(self) -> None:
        """Write everything that was reported until now."""
        batch, self._pending = self._pending, {}
        try:
            done = await commit(self._store, [change(task, "reported") for task in self._changed(batch)])
        except BaseException:
            self._restore(batch, batch)
            raise
        # The mirror shows the other writer's version in a moment; the next batch is made on it.
        self._restore(batch, [each.value.meta.id for each in done.conflicts if isinstance(each, Put)])
        if done.revision:
            await self._mirror.reached(done.revision)

    def _changed(self, batch: dict[str, TaskStatus]) -> Iterable[Task]:
        now_ns = self._clock.now_ns()
        for task_id, status in batch.items():
            task = self._mirror.tasks.get(task_id)
            if task is None or is_elsewhere(self._mirror.nodes.get(task.node_id), self._own_id):
                continue
            if status.state >= task.status.state and status != task.status:
                yield touched(task, now_ns, status=status)

    def _restore(self, batch: dict[str, TaskStatus], task_ids: Iterable[str]) -> None:
        for task_id in task_ids:
            self._pending.setdefault(task_id, batch[task_id])
            self._new.set()


def _bounded(status: TaskStatus) -> TaskStatus:
    """`status` with texts of a size that a record can bear."""
    if len(status.message) <= _MAX_TEXT and len(status.error) <= _MAX_TEXT:
        return status
    return msgspec.structs.replace(status, message=status.message[:_MAX_TEXT], error=status.error[:_MAX_TEXT])
