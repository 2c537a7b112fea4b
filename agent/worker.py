"""Worker: turns assignments into runners, one per task, and into the wish of the mesh.

What comes from a manager is on the disk before anything is done about it, so that a host that reboots while no
manager answers starts what it was told to run. `agent/session.py` brings the messages; `agent/taskrun.py` does
the work.
"""

from __future__ import annotations

import asyncio
import logging

from agent import task as ladder
from agent.assignment import Assignment, Change, changed, changes_in
from agent.database import Database, Kept
from agent.mesh import Mesh
from agent.reporter import Reporter
from agent.taskrun import Host, TaskRun
from shoal.errors import Conflict, ShoalError
from shoal.model.assignment import AssignedTask
from shoal.tasks import Group
from shoal.v1 import dispatcher_pb2

log = logging.getLogger(__name__)


class Worker:
    """Runs in `group`. `restore` first, then any number of `assign`, at last perhaps `end`."""

    def __init__(self, host: Host, *, database: Database, mesh: Mesh, reporter: Reporter, group: Group) -> None:
        self._host = host
        self._database = database
        self._mesh = mesh
        self._reporter = reporter
        self._group = group
        self._assignment = Assignment()
        self._sequence: int | None = None
        # What came so far of a complete assignment that is not all here yet.
        self._whole: list[Change] | None = None
        self._runs: dict[str, TaskRun] = {}
        self._doing: dict[str, asyncio.Task[None]] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        # One message at a time: what the disk has and what the runners do must not part.
        self._turn = asyncio.Lock()

    @property
    def assignment(self) -> Assignment:
        return self._assignment

    async def restore(self) -> None:
        """Take up what was assigned before this agent started: adopt what runs, start what a reboot ended."""
        async with self._turn:
            kept = await self._database.statuses()
            self._assignment = await self._database.assignment()
            await self._reach()
            for task in self._assignment.tasks.values():
                self._take_up(task, kept.get(task.task_id))
            for task_id in kept.keys() - self._assignment.tasks.keys():
                await self._database.forget_status(task_id)
            if self._runs:
                log.info("taken up tasks=%d", len(self._runs))

    def begin_session(self) -> None:
        """A new stream: its first message must be a complete one."""
        self._sequence = None
        self._whole = None

    async def assign(self, message: dispatcher_pb2.Assignments) -> None:
        """Carry out one message. Raises Conflict for a gap in the sequence: the session must begin anew."""
        async with self._turn:
            self._check_sequence(message)
            changes = changes_in(message)
            if message.complete:
                self._whole = []
            if (whole := self._whole) is not None:
                whole += changes
                if message.more:
                    self._sequence = message.sequence
                    return
                after = changed(Assignment(), whole)
                await self._database.replace(after)
                self._whole = None
            else:
                after = changed(self._assignment, changes)
                await self._database.change(changes)
            self._sequence = message.sequence
            before, self._assignment = self._assignment, after
            if not after.reaches_as(before):
                # Before the runners: a task needs its network, and leaves the balance before it is told to stop.
                await self._reach()
            self._wake()
            if whole is not None:
                self._group.spawn("sweep of tasks", self._sweep())

    async def end(self, *, timeout_s: float) -> None:
        """The host leaves the cluster: stop and remove every task. Returns when none is left, or given up."""
        async with self._turn:
            self._assignment = Assignment()
            await self._database.replace(self._assignment)
            self._wake()
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            log.warning("tasks do not end, left behind: %s", ", ".join(self._runs))
            for doing in self._doing.values():
                doing.cancel()

    async def _sweep(self) -> None:
        """Remove containers of tasks that neither the cluster nor a runner knows: their records were lost."""
        for container in await self._host.containers.list(all=True):
            if container.task_id and container.task_id not in self._runs:
                log.warning("container %s is of no task that is assigned: removed", container.name)
                try:
                    await self._host.containers.remove(container.meta.id, force=True, volumes=True)
                except ShoalError as error:
                    log.warning("container %s cannot be removed: %s", container.name, error)

    def _check_sequence(self, message: dispatcher_pb2.Assignments) -> None:
        if message.complete:
            return
        if self._sequence is None or message.sequence != self._sequence + 1:
            raise Conflict(f"assignment {message.sequence} does not follow {self._sequence}; asking for all anew")

    async def _reach(self) -> None:
        await self._mesh.want(*self._assignment.mesh())
        await self._mesh.settled()

    def _wake(self) -> None:
        """Every runner gets what is wanted of its task now; a new task gets a runner."""
        for task_id, run in self._runs.items():
            run.want(self._assignment.tasks.get(task_id))
        for task in self._assignment.tasks.values():
            if task.task_id not in self._runs:
                self._take_up(task, None)

    def _take_up(self, task: AssignedTask, kept: Kept | None) -> None:
        if kept is None:
            status, rebooted = ladder.accepted(self._host.clock.now_ns()), False
            self._reporter.report(task.task_id, status)
        else:
            status, rebooted = kept.status, kept.boot != self._database.boot
            self._reporter.restore(task.task_id, status)
        run = TaskRun(
            self._host,
            self._assignment.template_of(task),
            task,
            status=status,
            rebooted=rebooted,
            tell=self._reporter.report,
        )
        self._runs[task.task_id] = run
        self._idle.clear()
        self._doing[task.task_id] = self._group.spawn(f"task {task.task_id}", self._run(task.task_id, run))

    async def _run(self, task_id: str, run: TaskRun) -> None:
        await run.run()
        self._reporter.forget(task_id)
        await self._database.forget_status(task_id)
        del self._runs[task_id], self._doing[task_id]
        log.info("task removed task=%s", task_id)
        if (again := self._assignment.tasks.get(task_id)) is not None:
            self._take_up(again, None)
        elif not self._runs:
            self._idle.set()
