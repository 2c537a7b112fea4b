"""Taskrun: carries out one task. A thin loop: look, let `agent/task.py` decide, tell the status, do the step.

One runner lives as long as its task is assigned, and is the only one who touches the task's container. Nothing in
it needs a manager. An agent that is killed at any point comes back to the same decision, since every step begins
by looking: the container is found by its name and its task id.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

import msgspec

from agent import task as ladder
from agent.task import Step, decide
from shoal.backoff import Backoff
from shoal.clock import Clock
from shoal.errors import NotFound, ShoalError
from shoal.model.assignment import AssignedTask, Template
from shoal.model.container import Container
from shoal.model.health import HealthState
from shoal.model.node import NodeDescription
from shoal.model.task import TaskState, TaskStatus

log = logging.getLogger(__name__)

# For what was led to the task a moment before the last host ceased to.
DRAIN_S = 1.0


class ContainerRoom(Protocol):
    """What a task needs of `agent.container.containers.Containers`."""

    async def create(self, wanted: Container) -> Container: ...
    async def start(self, ref: str) -> Container: ...
    async def stop(self, ref: str) -> Container: ...
    async def remove(self, ref: str, *, force: bool = False, volumes: bool = False) -> None: ...
    async def wait_change(self, ref: str, health: HealthState) -> None: ...
    async def list(self, *, all: bool = False) -> list[Container]: ...
    def find(self, name: str) -> Container | None: ...


class Balance(Protocol):
    """What a task needs of `agent.mesh.Mesh`."""

    async def joined(self, networks: Sequence[str]) -> None: ...
    async def leave(self, task_id: str, service_id: str) -> bool: ...
    def forget(self, task_id: str) -> None: ...


class Host(msgspec.Struct, frozen=True):
    """What all tasks of this host share: `described` is the host itself, `image` makes sure that the image of a
    template is here and gives the reference to create from, `withdrawn` waits until no other host leads anybody to a
    task."""

    node_id: str
    described: NodeDescription
    containers: ContainerRoom
    balance: Balance
    image: Callable[[Template], Coroutine[Any, Any, str]]
    withdrawn: Callable[[str], Coroutine[Any, Any, None]]
    clock: Clock


class TaskRun:
    """`tell` is called with every new status. `rebooted`: `status` was written before the host started anew."""

    def __init__(
        self,
        host: Host,
        template: Template,
        wanted: AssignedTask,
        *,
        status: TaskStatus,
        rebooted: bool,
        tell: Callable[[str, TaskStatus], None],
    ) -> None:
        self._host = host
        self._template = template
        self._task = wanted
        self._wanted: AssignedTask | None = wanted
        self._status = status
        self._rebooted = rebooted
        self._tell = tell
        self._name = ladder.container_name(template, wanted, node_id=host.node_id)
        self._changed = asyncio.Event()
        self._ending = asyncio.Event()
        self._backoff = Backoff(0.5, 30)
        # As it was when the last decision was made: another one asks for another decision.
        self._health = HealthState.NONE

    @property
    def status(self) -> TaskStatus:
        return self._status

    def want(self, wanted: AssignedTask | None) -> None:
        """Something else is wanted of the task; None: it is no longer assigned. What is wanted only rises."""
        if self._wanted is None or (wanted is not None and wanted.desired <= self._wanted.desired):
            return
        self._wanted = wanted
        self._changed.set()
        if wanted is None or wanted.desired > TaskState.RUNNING:
            self._ending.set()

    async def run(self) -> None:
        """Until the task is no longer assigned and its container is removed. Cancelled, the container goes on."""
        while True:
            self._changed.clear()
            container = self._container()
            decision = decide(
                self._wanted,
                self._status,
                container,
                now_ns=self._host.clock.now_ns(),
                rebooted=self._rebooted,
            )
            self._rise(decision.status)
            if decision.step is Step.WATCH:
                self._rebooted = False
            self._health = container.status.health.state if container is not None else HealthState.NONE
            try:
                if await self._carry_out(decision.step):
                    return
                self._backoff.reset()
            except Exception as error:  # the boundary: one task's failure is that task's alone
                await self._failed(decision.step, error)

    async def _carry_out(self, step: Step) -> bool:
        """Whether the task is over."""
        match step:
            case Step.PREPARE:
                await self._unless_ending(self._prepare())
            case Step.START:
                await self._start()
            case Step.WATCH:
                await self._unless_ending(self._watch())
            case Step.STOP:
                await self._stop()
            case Step.HOLD:
                if self._status.state > TaskState.RUNNING:
                    await self._leave()
                await self._changed.wait()
            case Step.REMOVE:
                await self._remove()
                return True
        return False

    async def _prepare(self) -> None:
        if not self._template.spec.container.image:
            # Its service is gone, or two versions on, and says no more of it: it is about to be told to end.
            await self._ending.wait()
            return
        image = await self._host.image(self._template)
        wanted = ladder.container_of(
            self._template, self._task, node_id=self._host.node_id, host=self._host.described, image=image
        )
        container = self._container() or await self._host.containers.create(wanted)
        await self._host.balance.joined([each.network for each in wanted.networks])
        self._rise(ladder.ready(self._status, container, self._host.clock.now_ns()))

    async def _start(self) -> None:
        await self._host.containers.start(self._name)
        if self._rebooted:
            # Told even if nothing else is new, so that the record says in which boot it is true.
            now_ns = self._host.clock.now_ns()
            self._rise(ladder.rise(self._status, self._status.state, now_ns, message="started again: host rebooted"))

    async def _watch(self) -> None:
        await self._host.containers.wait_change(self._name, self._health)

    async def _stop(self) -> None:
        if await self._leave():
            await self._host.withdrawn(self._task.task_id)
            await self._host.clock.sleep(DRAIN_S)
        await self._host.containers.stop(self._name)

    async def _leave(self) -> bool:
        return await self._host.balance.leave(self._task.task_id, self._task.service_id)

    async def _remove(self) -> None:
        if self._container() is not None:
            with contextlib.suppress(NotFound):
                await self._host.containers.remove(self._name, volumes=True)
        self._host.balance.forget(self._task.task_id)

    def _container(self) -> Container | None:
        """The task's container, if there is one; another's of the same name does not count."""
        container = self._host.containers.find(self._name)
        return container if container is not None and container.task_id == self._task.task_id else None

    def _rise(self, status: TaskStatus) -> None:
        if status != self._status:
            self._status = status
            self._tell(self._task.task_id, status)

    async def _failed(self, step: Step, error: Exception) -> None:
        """A step of the climb that fails ends the task; one of the way down is tried again."""
        known = isinstance(error, ShoalError)
        log.warning("task %s: %s failed: %s", self._task.task_id, step.value, error, exc_info=None if known else error)
        if step in (Step.PREPARE, Step.START):
            said = str(error) if known else f"{type(error).__name__}: {error}"
            self._rise(ladder.failed(self._status, said, self._host.clock.now_ns()))
        else:
            await self._host.clock.sleep(self._backoff.next())

    async def _unless_ending(self, work: Coroutine[Any, Any, None]) -> None:
        """Do `work`, but break it off when the task is to end."""
        doing = asyncio.ensure_future(work)
        ending = asyncio.ensure_future(self._ending.wait())
        try:
            await asyncio.wait((doing, ending), return_when=asyncio.FIRST_COMPLETED)
        finally:
            ending.cancel()
            if not doing.done():
                doing.cancel()
                await asyncio.gather(doing, return_exceptions=True)
        if doing.done() and not doing.cancelled():
            doing.result()
