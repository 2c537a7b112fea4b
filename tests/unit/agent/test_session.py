"""The session against a manager over real mutual TLS: what is said, in which order, and what a break changes."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import gc
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from agent.certificate import Credentials
from agent.describe import describe
from agent.located import Located, Source
from agent.reporter import Reporter
from agent.session import Session
from shoal.broadcast import Broadcast
from shoal.clock import SystemClock
from shoal.errors import Conflict, Unavailable
from shoal.model.base import Meta
from shoal.model.node import Role
from shoal.model.task import TaskState, TaskStatus
from shoal.model.trust import Revocation, Trust
from shoal.v1 import dispatcher_pb2 as wire
from shoal.v1 import types_pb2
from tests.unit.agent.conftest import Authority, Manager, Stream, eventually

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

    def begin_session(self) -> None:
        self.sessions += 1

    async def assign(self, message: wire.Assignments) -> None:
        if self.refuse:
            raise self.refuse.pop()
        self.messages.append(message)


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


@pytest.fixture
async def connect(authority: Authority, manager: Manager, tmp_path: Path) -> AsyncIterator[Connect]:
    """Starts an agent's session to these managers."""
    tasks = []

    def start(*managers: str) -> Agent:
        credentials = Credentials(tmp_path / "identity", authority.identity("node1"))
        agent = Agent(credentials, managers or (manager.address,))
        tasks.extend([asyncio.create_task(agent.reporter.run()), asyncio.create_task(agent.session.run())])
        return agent

    yield start
    for each in tasks:
        if each.done():
            each.result()
        each.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await each


async def test_says_hello_first_then_beats_at_the_managers_period(connect: Connect, manager: Manager) -> None:
    agent = connect()
    stream = await manager.session()
    hello = (await stream.received.get()).hello
    assert stream.node_id == "node1"
    assert hello.description.address == "10.0.0.1"
    assert [(image.reference, image.manifest_digest) for image in hello.images.images] == agent.images.there
    began = asyncio.get_running_loop().time()
    for _ in range(3):
        await stream.next("heartbeat")
    assert asyncio.get_running_loop().time() - began >= 0.1
    assert agent.session.link.manager == manager.address
    assert agent.worker.sessions == 1


async def test_beats_at_once_at_a_new_period_of_a_session_that_stands(authority: Authority, connect: Connect) -> None:
    slow = Manager(authority, heartbeat_ns=3600 * 10**9)
    await slow.start()
    connect(slow.address)
    stream = await slow.session()
    await stream.to_send.put(wire.SessionResponse(welcome=wire.Welcome(heartbeat_ns=20_000_000)))
    for _ in range(3):
        await stream.next("heartbeat")
    await slow.stop()


async def test_hands_assignments_to_the_worker_in_order(connect: Connect, manager: Manager) -> None:
    agent = connect()
    stream = await manager.session()
    await stream.assign(sequence=1, complete=True)
    await stream.assign(sequence=2)
    await eventually(lambda: len(agent.worker.messages) == 2)
    assert [message.sequence for message in agent.worker.messages] == [1, 2]


async def test_waits_longer_each_time_what_it_is_told_cannot_be_kept(connect: Connect, manager: Manager) -> None:
    agent = connect()
    agent.worker.refuse = [Conflict("the disk is full")] * 3
    for _ in range(4):
        stream = await manager.session()
        await stream.assign(sequence=1, complete=True)
    await eventually(lambda: len(agent.worker.messages) == 1)
    pauses = [each for each in agent.clock.slept if each in (0.01, 0.02, 0.04)]
    assert pauses == [0.01, 0.02, 0.04]


async def test_heeds_whom_the_manager_says_to_let_in(connect: Connect, manager: Manager) -> None:
    agent = connect()
    stream = await manager.session()
    message = wire.Trust(
        manager_ids=["m1"], revocations=[types_pb2.Revocation(meta=types_pb2.Meta(id="n9"), until_ns=7)]
    )
    await stream.to_send.put(wire.SessionResponse(trust=message))
    await eventually(lambda: len(agent.trusted) == 2)
    assert agent.trusted == [Trust(), Trust(("m1",), (Revocation(Meta(id="n9"), 7),))]


async def test_reports_are_batched_and_sent_again_over_a_new_stream(connect: Connect, manager: Manager) -> None:
    agent = connect()
    stream = await manager.session()
    agent.reporter.report("t1", TaskStatus(state=TaskState.PREPARING))
    agent.reporter.report("t1", RUNNING)
    agent.reporter.report("t2", RUNNING)
    reports = (await stream.next("reports")).reports
    assert [(each.task_id, each.status.pid) for each in reports] == [("t1", 7), ("t2", 7)]
    await stream.end()
    again = await manager.session()
    assert [each.task_id for each in (await again.next("reports")).reports] == ["t1", "t2"]


async def test_a_summons_ends_the_wait_for_managers_that_are_gone(connect: Connect, manager: Manager) -> None:
    """Documentation addresses (RFC 5737): nobody answers there, and a try would take ten seconds."""
    agent = connect("192.0.2.1:2377", "192.0.2.2:2377")
    began = asyncio.get_running_loop().time()
    while agent.session.link.manager != manager.address:
        agent.session.summon([manager.address])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                await manager.session()
    assert asyncio.get_running_loop().time() - began < 10
    await eventually(lambda: bool(agent.kept) or agent.session.managers[0] == manager.address)


async def test_a_summons_does_not_call_away_from_a_session(connect: Connect, manager: Manager) -> None:
    agent = connect()
    stream = await manager.session()
    await eventually(lambda: agent.session.link.manager == manager.address)
    agent.session.summon(["192.0.2.1:2377"])
    await stream.next("heartbeat")
    assert agent.session.managers == (manager.address,)


async def test_comes_back_after_the_manager_died(connect: Connect, manager: Manager, authority: Authority) -> None:
    agent = connect()
    await manager.session()
    port = int(manager.address.rpartition(":")[2])
    await manager.stop()
    await eventually(lambda: agent.session.link.error)
    second = Manager(authority)
    await second.start(port)
    await second.session()
    await eventually(lambda: not agent.session.link.error)
    assert agent.worker.sessions == 2
    await second.stop()


async def test_goes_to_the_next_manager(connect: Connect, manager: Manager) -> None:
    connect("127.0.0.1:1", manager.address)
    await manager.session()


async def test_keeps_the_managers_that_the_cluster_names(connect: Connect, manager: Manager) -> None:
    manager.named = [manager.address, "10.9.9.9:2377"]
    agent = connect()
    await manager.session()
    await eventually(lambda: agent.kept == [[manager.address, "10.9.9.9:2377"]])
    assert agent.session.managers == (manager.address, "10.9.9.9:2377")


async def test_managers_and_role_that_change_are_learnt_in_the_session(connect: Connect, manager: Manager) -> None:
    agent = connect()
    stream = await manager.session()
    others = [manager.address, "10.9.9.8:2377", "10.9.9.9:2377"]
    await stream.to_send.put(
        wire.SessionResponse(welcome=wire.Welcome(managers=others, serving=1, role=types_pb2.ROLE_MANAGER))
    )
    await eventually(lambda: agent.session.role is Role.MANAGER)
    assert agent.session.told.is_set()
    assert agent.session.managers == tuple(others)
    assert manager.streams.empty()


async def test_a_session_that_ends_leaves_nothing_that_asyncio_complains_of(connect: Connect, manager: Manager) -> None:
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["message"]))
    connect()
    for _ in range(3):
        stream = await manager.session()
        await stream.next("heartbeat")
        await stream.end()
    await manager.session()
    gc.collect()
    await asyncio.sleep(0)
    assert complaints == []


async def test_moves_to_a_manager_that_serves_again(connect: Connect, manager: Manager, authority: Authority) -> None:
    second = Manager(authority)
    await second.start()
    agent = connect()
    stream = await manager.session()
    for serving in (1, 2):
        welcome = wire.Welcome(managers=[manager.address, second.address], serving=serving)
        await stream.to_send.put(wire.SessionResponse(welcome=welcome))
    await second.session()
    await eventually(lambda: agent.session.link.manager == second.address)
    await second.stop()


@pytest.fixture
async def second(authority: Authority) -> AsyncIterator[Manager]:
    """A manager that comes while the node is in a session with the first, and lets nobody in yet."""
    second = Manager(authority)
    await second.start()
    second.welcoming.clear()
    yield second
    await second.stop()


async def call_over(stream: Stream, manager: Manager, second: Manager) -> None:
    """Tell the node that `second` serves now; returns once it has called there."""
    for serving in (1, 2):
        welcome = wire.Welcome(managers=[manager.address, second.address], serving=serving)
        await stream.to_send.put(wire.SessionResponse(welcome=welcome))
    await eventually(lambda: second.calls)


async def test_a_node_that_moves_is_in_its_old_session_until_the_new_one_stands(
    connect: Connect, manager: Manager, second: Manager
) -> None:
    agent = connect()
    stream = await manager.session()
    await call_over(stream, manager, second)
    agent.reporter.report("t1", RUNNING)
    assert [each.task_id for each in (await stream.next("reports")).reports] == ["t1"]
    agent.images.there.append(("docker.io/library/x:1", "sha256:2"))
    agent.images.changes.publish(None)
    assert len((await stream.next("images")).images) == 2
    assert (agent.session.link.manager, agent.worker.sessions) == (manager.address, 1)
    second.welcoming.set()
    newer = await second.session()
    await eventually(stream.over.is_set)
    # What changed while it was let in, and all that the old session may not have delivered, is said here.
    assert len((await newer.received.get()).hello.images.images) == 1
    said = {request.WhichOneof("request"): request for request in [await newer.received.get() for _ in range(2)]}
    assert [each.task_id for each in said["reports"].reports.reports] == ["t1"]
    assert len(said["images"].images.images) == 2
    assert (agent.session.link.manager, agent.worker.sessions) == (second.address, 2)


async def test_an_end_of_the_old_session_does_not_break_off_a_move(
    connect: Connect, manager: Manager, second: Manager
) -> None:
    agent = connect()
    stream = await manager.session()
    await call_over(stream, manager, second)
    await stream.end()
    await eventually(stream.over.is_set)
    second.welcoming.set()
    await second.session()
    await eventually(lambda: agent.session.link.manager == second.address)
    assert (manager.calls, second.calls) == (1, 1)


async def test_stays_where_it_is_when_the_other_manager_does_not_let_it_in(
    connect: Connect, manager: Manager, second: Manager
) -> None:
    agent = connect()
    stream = await manager.session()
    await call_over(stream, manager, second)
    await second.stop()
    await eventually(lambda: agent.session.managers == (manager.address, second.address))
    await stream.next("heartbeat")
    assert (agent.session.link.manager, manager.calls) == (manager.address, 1)
    # A break after this is one of the session that stands.
    await stream.end()
    await manager.session()


async def test_comes_back_to_the_first_manager_after_the_one_it_moved_to_died(
    connect: Connect, manager: Manager, second: Manager
) -> None:
    agent = connect()
    stream = await manager.session()
    await call_over(stream, manager, second)
    second.named = [second.address, manager.address]
    second.welcoming.set()
    await second.session()
    await eventually(lambda: agent.session.link.manager == second.address)
    await second.stop()
    await manager.session()
    assert agent.session.managers[0] == manager.address


async def test_a_gap_opens_a_new_session(connect: Connect, manager: Manager) -> None:
    agent = connect()
    stream = await manager.session()
    agent.worker.refuse.append(Conflict("assignment 9 does not follow 1"))
    await stream.assign(sequence=9)
    await manager.session()
    await eventually(lambda: agent.worker.sessions == 2)


async def test_new_images_are_told_once_per_burst(connect: Connect, manager: Manager) -> None:
    agent = connect()
    stream = await manager.session()
    await eventually(lambda: agent.images.changes._listeners)
    for number in range(5):
        agent.images.there.append((f"docker.io/library/x:{number}", "sha256:2"))
        agent.images.changes.publish(None)
    assert len((await stream.next("images")).images) == 6


async def test_says_goodbye_and_does_not_come_back(connect: Connect, manager: Manager) -> None:
    agent = connect()
    stream = await manager.session()
    await agent.session.goodbye()
    await stream.next("goodbye")
    await asyncio.sleep(0.1)
    assert manager.streams.empty()


async def test_says_when_its_agent_will_be_back(connect: Connect, manager: Manager) -> None:
    agent = connect()
    stream = await manager.session()
    await agent.session.goodbye(back_within_s=60)
    assert (await stream.next("goodbye")).back_within_ns == 60_000_000_000


async def test_goodbye_without_a_manager_returns_at_once(connect: Connect) -> None:
    agent = connect("127.0.0.1:1")
    async with asyncio.timeout(1):
        await agent.session.goodbye()


async def test_a_renewed_certificate_makes_a_new_stream(
    connect: Connect, manager: Manager, authority: Authority
) -> None:
    agent = connect()
    stream = await manager.session()
    manager.welcoming.clear()
    agent.credentials.replace(authority.identity("node1"))
    await eventually(lambda: manager.calls == 2)
    await stream.next("heartbeat")
    manager.welcoming.set()
    await manager.session()
    await eventually(stream.over.is_set)


async def test_asks_who_holds_an_image(connect: Connect, manager: Manager) -> None:
    manager.sources = [wire.ImageSource(node_id="n2", address="10.0.0.2:2376", manifest_digest="sha256:1")]
    agent = connect()
    with pytest.raises(Unavailable, match="no manager is connected"):
        await agent.session.locate("web:1", "")
    await manager.session()
    await eventually(lambda: agent.session.link.manager)
    assert await agent.session.locate("web:1", "") == Located((Source("n2", "10.0.0.2:2376", "sha256:1"),))


async def test_a_manager_of_another_cluster_is_refused(
    connect: Connect, manager: Manager, authority: Authority
) -> None:
    stranger = Manager(Authority())
    await stranger.start()
    agent = connect(stranger.address)
    await eventually(lambda: agent.session.link.error)
    assert stranger.streams.empty()
    await stranger.stop()


async def test_an_expired_certificate_gets_no_session(manager: Manager, authority: Authority, tmp_path: Path) -> None:
    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)
    identity = authority.identity("node1", not_before=past - datetime.timedelta(hours=24), not_after=past)
    agent = Agent(Credentials(tmp_path, identity), (manager.address,))
    running = asyncio.create_task(agent.session.run())
    await eventually(lambda: agent.session.link.error)
    assert manager.streams.empty()
    running.cancel()
