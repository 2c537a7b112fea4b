"""Held: one container as the agent holds it in memory, with those who wait for what becomes of it."""

from __future__ import annotations

import asyncio
from typing import TypeVar

import msgspec

from agent.container.record import Record, State
from agent.kernel.pidfd import alive, start_time
from shoal.errors import Conflict
from shoal.model.container import Container, ContainerState, RestartCondition

T = TypeVar("T")
_FORGET_FROM = 64
ALIVE = frozenset((ContainerState.RUNNING, ContainerState.PAUSED))
BUSY = ALIVE | {ContainerState.RESTARTING}


class Ending(msgspec.Struct, frozen=True):
    """How the last run ended, for who waited."""

    exit_code: int
    oom_killed: bool = False
    error: str = ""


class Commands:
    """The commands that run in a container besides its own, by their ids."""

    def __init__(self) -> None:
        self._begun: dict[str, tuple[int, int]] = {}

    def add(self, exec_id: str, pid: int) -> None:
        """One that has begun. Those that nobody stayed with are forgotten some time after their end."""
        if len(self._begun) >= _FORGET_FROM:
            self.running()
        self._begun[exec_id] = (pid, start_time(pid))

    def discard(self, exec_id: str) -> None:
        self._begun.pop(exec_id, None)

    def running(self) -> list[str]:
        """As the kernel knows, in the order in which they began."""
        self._begun = {exec_id: each for exec_id, each in self._begun.items() if alive(*each)}
        return list(self._begun)


class Held:
    """`lock` is held while the container changes from one state to another, never while it runs.

    `watcher` waits for the exit, or sleeps until the next restart; `prober` asks after its health. `cleared`: nothing
    of a run is left in the runtime and the network, as far as this agent knows.
    """

    def __init__(self, record: Record, state: State) -> None:
        self.record = record
        self.state = state
        self.lock = asyncio.Lock()
        self.watcher: asyncio.Task[None] | None = None
        self.prober: asyncio.Task[None] | None = None
        self.gone = False
        self.cleared = False
        self.commands = Commands()
        self._exits: set[asyncio.Future[Ending]] = set()
        self._removals: set[asyncio.Future[Ending]] = set()
        self._health_news: set[asyncio.Future[None]] = set()

    @property
    def id(self) -> str:
        return self.record.container.meta.id

    @property
    def name(self) -> str:
        return self.record.container.name

    @property
    def container(self) -> Container:
        return msgspec.structs.replace(self.record.container, status=self.state.status)

    @property
    def alive(self) -> bool:
        """Whether it has a process now."""
        return self.state.status.state in ALIVE

    @property
    def busy(self) -> bool:
        """Whether it has one, or will have one soon by its restart policy."""
        return self.state.status.state in BUSY

    @property
    def auto_remove(self) -> bool:
        """Whether it goes when it ends."""
        return self.record.container.auto_remove

    @property
    def revives(self) -> bool:
        """Whether its state decides what happens after a power cut, and so must survive one."""
        return self.record.container.restart.condition != RestartCondition.NONE

    @property
    def ending(self) -> Ending:
        status = self.state.status
        return Ending(exit_code=status.exit_code, oom_killed=status.oom_killed, error=status.error)

    def next_exit(self) -> asyncio.Future[Ending]:
        return _future(self._exits)

    def removal(self) -> asyncio.Future[Ending]:
        return _future(self._removals)

    def tell_exit(self) -> None:
        self.tell_health()
        _resolve(self._exits, self.ending)

    def tell_removal(self) -> None:
        self.gone = True
        self.tell_health()
        _resolve(self._exits, self.ending)
        _resolve(self._removals, self.ending)

    def health_news(self) -> asyncio.Future[None]:
        """The next change of its health, or its next exit."""
        return _future(self._health_news)

    def tell_health(self) -> None:
        _resolve(self._health_news, None)

    def check_there(self) -> None:
        """Raises Conflict if it was removed while the caller waited for the lock."""
        if self.gone:
            raise Conflict(f"container {self.id} has been removed meanwhile")

    def unwatch(self) -> None:
        """Stop waiting for a restart, or for the exit when the agent goes. Call with the lock, or at the end."""
        if self.watcher is not None:
            self.watcher.cancel()
            self.watcher = None
        self.unprobe()

    def unprobe(self) -> None:
        """Ask no more after its health."""
        if self.prober is not None:
            self.prober.cancel()
            self.prober = None


def _future(waiting: set[asyncio.Future[T]]) -> asyncio.Future[T]:
    """A future that leaves the set when its waiter goes."""
    future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    waiting.add(future)
    future.add_done_callback(waiting.discard)
    return future


def _resolve(waiting: set[asyncio.Future[T]], result: T) -> None:
    for future in tuple(waiting):
        if not future.done():
            future.set_result(result)
