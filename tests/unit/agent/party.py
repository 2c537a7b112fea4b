"""An agent's session with the parts around it, as its tests start it: real certificates and streams, and parts that
note what they are told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from agent.certificate import Credentials
from agent.describe import describe
from agent.reporter import Reporter
from agent.session import Session
from shoal.broadcast import Broadcast
from shoal.clock import SystemClock
from shoal.errors import Conflict
from shoal.model.task import TaskState, TaskStatus
from shoal.model.trust import Trust
from shoal.v1 import dispatcher_pb2 as wire

RUNNING = TaskStatus(state=TaskState.RUNNING, pid=7)


class Images:
    def __init__(self) -> None:
        self.changes: Broadcast[None] = Broadcast()
        self.there = [("docker.io/library/web:1", "sha256:1")]

    def held(self) -> list[tuple[str, str]]:
        return self.there


class Worker:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.sessions = 0
        self.messages: list[wire.Assignments] = []
        self.refuse: list[Conflict] = []
        # It takes as long over each message as this is clear.
        self.done = asyncio.Event()
        self.done.set()

    def begin_session(self) -> None:
        self.sessions += 1

    async def assign(self, message: wire.Assignments) -> None:
        if self.refuse:
            raise self.refuse.pop()
        self.messages.append(message)
        await self.done.wait()


class Waits(SystemClock):
    """Notes how long was slept for."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 6))
        await super().sleep(seconds)


class Agent:
    """A session with its parts."""

    def __init__(self, credentials: Credentials, managers: Sequence[str]) -> None:
        self.credentials = credentials
        self.images = Images()
        self.worker = Worker()
        self.clock = Waits()
        self.reporter = Reporter(self._save, clock=SystemClock())
        self.kept: list[list[str]] = []
        self.trusted: list[Trust] = []
        self.session = Session(
            credentials,
            managers,
            worker=self.worker,
            reporter=self.reporter,
            images=self.images,
            describe=lambda: describe("10.0.0.1"),
            keep_managers=self._keep,
            trust=self,
            clock=self.clock,
            chance=lambda: 0.1,
        )

    async def _save(self, statuses: object) -> None:
        return None

    async def learn(self, trust: Trust) -> None:
        self.trusted.append(trust)

    async def _keep(self, managers: Sequence[str]) -> None:
        self.kept.append(list(managers))


Connect = Callable[..., Agent]
