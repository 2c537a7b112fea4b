"""The session and its managers: which one it calls, when it goes to another, and what a break changes."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.certificate import Credentials
from shoal.v1 import dispatcher_pb2 as wire
from tests.unit.agent.conftest import Authority, Manager, Stream, eventually
from tests.unit.agent.party import RUNNING, Agent, Connect


async def test_a_summons_ends_the_wait_for_managers_that_are_gone(connect: Connect, manager: Manager) -> None:
    """Documentation addresses (RFC 5737): nobody answers there, and a try would take ten seconds."""
    agent = connect("192.0.2.1:2377", "192.0.2.2:2377")
    began = asyncio.get_running_loop().time()
    while agent.session.link.manager != manager.address:
        agent.session.summon([manager.address])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
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


async def test_a_session_that_ends_stops_no_task_half_way(connect: Connect, manager: Manager) -> None:
    """A task that waits for its withdrawal goes on, to be stopped: with its runner it would run for ever."""
    agent = connect()
    stream = await manager.session()
    await eventually(lambda: agent.session.link.manager == manager.address)
    waiting = asyncio.create_task(agent.session.withdrawn("t1"))
    await manager.withdrawing.wait()
    await stream.end()
    await waiting


async def test_hears_that_its_session_ended_while_it_carried_out_what_is_to_be_confirmed(
    connect: Connect, manager: Manager
) -> None:
    """What it says to a manager that has ended the session goes nowhere, and holds up nobody."""
    agent = connect()
    stream = await manager.session()
    agent.worker.done.clear()
    told = wire.Assignments(complete=True, sequence=1, confirm=True)
    await stream.to_send.put(wire.SessionResponse(assignments=told))
    await eventually(lambda: bool(agent.worker.messages))
    await stream.end()
    await stream.over.wait()
    spoken = len(agent.clock.slept)
    await eventually(lambda: len(agent.clock.slept) > spoken + 5)
    agent.worker.done.set()
    await manager.session()


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
