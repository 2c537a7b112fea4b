"""Withdrawals: a task's end is answered once the agents of all hosts have said that they lead nobody to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from manager.dispatcher.assigner import Assigner
from manager.dispatcher.session import AgentSession
from manager.dispatcher.withdrawal import WAIT_S, Withdrawals
from manager.store.mirror import MirrorEvent
from manager.store.view import View
from shoal.channels import Channels
from shoal.clock import ManualClock, settle
from shoal.model.node import NodeState, NodeStatus
from shoal.model.task import TaskState
from shoal.model.trust import Trust
from shoal.v1 import dispatcher_pb2 as wire
from tests.unit.manager.dispatcher.test_bulletin import lease, network, node, service, task

RUNNING = task("t1", TaskState.RUNNING, TaskState.RUNNING)


class Agent:
    """The other end of a session, which reads and confirms when it is told to."""

    def __init__(self, session: AgentSession) -> None:
        self.session = session
        self._responses: Any = session.responses()

    async def read(self) -> wire.Assignments:
        """The next assignment."""
        while True:
            response = await anext(self._responses)
            if isinstance(response, bytes):
                return wire.SessionResponse.FromString(response).assignments

    async def carry_out(self) -> wire.Assignments:
        message = await self.read()
        assert message.confirm
        self.session.carried_out(message.sequence)
        return message


class Bench:
    """A manager of the nodes "a", "b" and "c", on all of which the network is; the first two are in a session."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        nodes = [node(id, NodeState.READY, "10.9.0.1") for id in ("a", "b")]
        down = node("c", NodeState.DOWN, "10.9.0.3")
        self.view = View([network(), service(attached=True), *nodes, down, *map(lease, ("a", "b", "c")), RUNNING])
        self.assigner = Assigner(self.view)
        self.sessions: dict[str, AgentSession] = {}
        self.agents = {id: self.enter(id) for id in ("a", "b")}
        self.withdrawals = Withdrawals(
            self.view,
            self.assigner,
            self.sessions,
            Channels(lambda: None),  # type: ignore[arg-type,return-value]
            own_id="a",
            catch_up=lambda: None,
            clock=self.clock,
        )

    def enter(self, id: str) -> Agent:
        self.sessions[id] = AgentSession(
            id, self.assigner, self.clock, catch_up=lambda: None, welcome=wire.Welcome, trust=Trust
        )
        return Agent(self.sessions[id])

    def put(self, value: Any, kind: str) -> None:
        self.assigner.apply(MirrorEvent(kind, value.meta.id, self.view.put(value), value, 0))
        self.assigner.settle()
        for session in self.sessions.values():
            session.wake()

    def end(self) -> None:
        self.put(msgspec.structs.replace(RUNNING, desired=TaskState.SHUTDOWN), "task")

    async def later(self, seconds: float = 0.1) -> None:
        await settle()
        await self.clock.advance(seconds)
        await settle()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    for agent in made.agents.values():
        await agent.carry_out()
    yield made


async def test_answers_once_every_agent_has_confirmed(bench: Bench) -> None:
    bench.end()
    answer = asyncio.create_task(bench.withdrawals.everywhere("t1"))
    await bench.later()
    await bench.agents["a"].carry_out()
    unconfirmed = await bench.agents["b"].read()
    await bench.later()
    assert not answer.done()
    bench.agents["b"].session.carried_out(unconfirmed.sequence)
    await bench.later()
    assert await answer


async def test_a_host_that_does_not_confirm_is_not_waited_for_without_end(bench: Bench) -> None:
    bench.end()
    answer = asyncio.create_task(bench.withdrawals.here("t1"))
    await bench.agents["a"].carry_out()
    for _ in range(int(WAIT_S) + 1):
        await bench.later(1)
    assert not await answer


async def test_a_manager_that_has_not_seen_the_end_yet_waits_for_it(bench: Bench) -> None:
    answer = asyncio.create_task(bench.withdrawals.here("t1"))
    await bench.later()
    assert not answer.done()
    bench.end()
    for agent in bench.agents.values():
        await agent.carry_out()
    await bench.later()
    assert await answer


async def test_a_host_whose_agent_is_away_is_waited_for_until_it_is_dead(bench: Bench) -> None:
    bench.end()
    await bench.agents["a"].carry_out()
    del bench.sessions["b"]
    answer = asyncio.create_task(bench.withdrawals.here("t1"))
    await bench.later()
    assert not answer.done()
    dead = msgspec.structs.replace(bench.view.nodes["b"], status=NodeStatus(NodeState.DOWN))
    bench.put(dead, "node")
    await bench.later()
    assert await answer


async def test_what_comes_to_a_network_needs_no_confirmation(bench: Bench) -> None:
    bench.put(task("t2", TaskState.RUNNING, TaskState.RUNNING), "task")
    for agent in bench.agents.values():
        assert not (await agent.read()).confirm


async def test_a_task_that_is_gone_is_withdrawn(bench: Bench) -> None:
    assert await bench.withdrawals.here("t9")
