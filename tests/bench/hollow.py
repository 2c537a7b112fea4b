"""Hollow agents: sessions of the real protocol over mutual TLS, each on its own connection, without a host behind.

A hollow agent is the agent's own session and reporter with a worker that has no containers: a task that it is told
to run is RUNNING at once, and SHUTDOWN as soon as that is wanted. `Hollow` holds any number of them in this process;
`python -m tests.bench.hollow` is a process of them (`fleet` starts it), which ends with its standard input.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import itertools
import json
import logging
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import uvloop

from agent.certificate import Credentials
from agent.reporter import Reporter
from agent.session import Session
from shoal.broadcast import Broadcast
from shoal.clock import SystemClock
from shoal.errors import Conflict
from shoal.model.base import Resources
from shoal.model.network import Address
from shoal.model.node import NodeDescription
from shoal.model.task import TaskState, TaskStatus
from shoal.model.trust import Trust
from shoal.process import allow_files, collect_rarely
from shoal.tls import Identity
from shoal.v1 import dispatcher_pb2 as wire
from shoal.v1.types_pb2 import TASK_STATE_RUNNING

TELL_S = 0.25
_IMAGE = ("docker.io/library/hollow:1", "sha256:" + "0" * 64)


class Images:
    """What a session needs to know of images: there is one, and it stays."""

    def __init__(self) -> None:
        self.changes: Broadcast[None] = Broadcast()

    def held(self) -> Sequence[tuple[str, str]]:
        return (_IMAGE,)


class Trusting:
    """Heeds nobody: nothing calls a hollow agent."""

    async def learn(self, trust: Trust) -> None:
        return None


class Worker:
    """Runs nothing, and says at once that it runs. Insists on the order of messages as the real one does."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._sequence: int | None = None
        self.sessions = 0
        self.running: set[str] = set()
        self.received_bytes = 0
        # Of each network: what is left of this node's block.
        self._addresses: dict[str, Iterator[object]] = {}

    def begin_session(self) -> None:
        self.sessions += 1
        self._sequence = None

    async def assign(self, message: wire.Assignments) -> None:
        self.received_bytes += message.ByteSize()
        if not message.complete and (self._sequence is None or message.sequence != self._sequence + 1):
            raise Conflict(f"assignment {message.sequence} does not follow {self._sequence}")
        self._sequence = message.sequence
        for change in message.changes:
            if change.HasField("network"):
                self._join(change.network, left=change.remove)
            elif change.HasField("task"):
                self._follow(change.task, wanted=not change.remove and change.task.desired <= TASK_STATE_RUNNING)
                if change.remove:
                    self._reporter.forget(change.task.task_id)

    def _join(self, network: wire.NetworkAssignment, *, left: bool) -> None:
        """From now on tasks have an address of this network, or no more."""
        if left:
            self._addresses.pop(network.network.meta.id, None)
        elif network.network.meta.id not in self._addresses:
            hosts = itertools.cycle(list(ipaddress.ip_network(network.block).hosts())[1:])
            self._addresses[network.network.meta.id] = hosts

    def _running(self) -> TaskStatus:
        addresses = tuple(Address(id, address=str(next(hosts))) for id, hosts in self._addresses.items())
        return TaskStatus(state=TaskState.RUNNING, at_ns=time.time_ns(), pid=1, addresses=addresses)

    def _follow(self, task: wire.AssignedTask, *, wanted: bool) -> None:
        if wanted and task.task_id not in self.running:
            self.running.add(task.task_id)
            self._reporter.report(task.task_id, self._running())
        elif not wanted and task.task_id in self.running:
            self.running.discard(task.task_id)
            self._reporter.report(task.task_id, TaskStatus(state=TaskState.SHUTDOWN, at_ns=time.time_ns()))


class Agent:
    """One hollow agent, the node of `identity`."""

    def __init__(self, identity: Identity, managers: Sequence[str], number: int) -> None:
        clock = SystemClock()
        self._number = number
        self.node_id = identity.node_id
        self.reporter = Reporter(self._save, clock=clock)
        self.worker = Worker(self.reporter)
        self.session = Session(
            Credentials(Path("/nonexistent"), identity),
            managers,
            worker=self.worker,
            reporter=self.reporter,
            images=Images(),
            describe=self._describe,
            keep_managers=self._keep,
            trust=Trusting(),
            clock=clock,
        )

    async def run(self) -> None:
        """Hold a session for ever, as an agent does."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.reporter.run())
            group.create_task(self.session.run())

    @property
    def connected(self) -> bool:
        return bool(self.session.link.manager)

    async def _save(self, statuses: Mapping[str, TaskStatus]) -> None:
        return None

    async def _keep(self, managers: Sequence[str]) -> None:
        return None

    def _describe(self) -> NodeDescription:
        room = Resources(nano_cpus=64 * 10**9, memory_bytes=256 << 30)
        low, high = self._number % 250 + 1, self._number // 250
        return NodeDescription(
            f"hollow{self._number}", "linux", "x86_64", "6.1", "hollow", room, {}, f"10.250.{high}.{low}"
        )


class Hollow:
    """All agents of this process."""

    def __init__(self, identities: Sequence[Identity], managers: Sequence[str], *, first: int = 0) -> None:
        self.agents = [Agent(each, managers, number) for number, each in enumerate(identities, first)]
        self._tasks: list[asyncio.Task[None]] = []

    @asynccontextmanager
    async def running(self, *, over_s: float = 0.0) -> AsyncIterator[None]:
        """Sessions for as long as the block lasts, begun one after the other within `over_s`."""
        async with asyncio.TaskGroup() as group:
            beginning = group.create_task(self._begin(group, over_s))
            try:
                yield
            finally:
                for task in (beginning, *self._tasks):
                    task.cancel()

    async def _begin(self, group: asyncio.TaskGroup, over_s: float) -> None:
        start = time.monotonic()
        for number, agent in enumerate(self.agents):
            await asyncio.sleep(max(0.0, start + over_s * number / len(self.agents) - time.monotonic()))
            self._tasks.append(group.create_task(agent.run()))

    def told(self) -> dict[str, float]:
        """How it is now. `lost` are sessions that stood once and ended; `received` is in bytes, of all assignments."""
        connected = sum(agent.connected for agent in self.agents)
        return {
            "connected": connected,
            "lost": sum(agent.worker.sessions for agent in self.agents) - connected,
            "running": sum(len(agent.worker.running) for agent in self.agents),
            "received": sum(agent.worker.received_bytes for agent in self.agents),
        }


async def _serve(wanted: argparse.Namespace) -> None:
    identities = msgspec.msgpack.decode(wanted.identities.read_bytes(), type=list[Identity])
    hollow = Hollow(identities, wanted.manager, first=wanted.first)
    async with hollow.running(over_s=wanted.over):
        ending = asyncio.ensure_future(asyncio.to_thread(sys.stdin.read))
        while not ending.done():
            print(json.dumps(hollow.told()), flush=True)
            await asyncio.wait((ending,), timeout=TELL_S)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--manager", action="append", required=True, help="ADDR:PORT")
    parser.add_argument("--identities", type=Path, required=True, help="file of identities (msgpack)")
    parser.add_argument("--over", type=float, default=0.0, help="seconds within which sessions begin")
    parser.add_argument("--first", type=int, default=0, help="number of the first agent")
    allow_files()
    collect_rarely()
    logging.disable(logging.CRITICAL)  # a thousand agents that lose their manager would say so a thousand times
    uvloop.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
