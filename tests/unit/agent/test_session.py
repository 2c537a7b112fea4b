"""The session against a manager over real mutual TLS: what is said in it, and in which order. How it changes from one
manager to another is `test_session_moves`."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from agent.located import Located, Source
from shoal.errors import Conflict, Unavailable
from shoal.model.base import Meta
from shoal.model.node import Role
from shoal.model.task import TaskState, TaskStatus
from shoal.model.trust import Revocation, Trust
from shoal.v1 import dispatcher_pb2 as wire
from shoal.v1 import types_pb2
from tests.unit.agent.conftest import Authority, Manager, eventually
from tests.unit.agent.party import RUNNING, Connect


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
    async with asyncio.timeout(5):
        await agent.session.goodbye()


async def test_asks_who_holds_an_image(connect: Connect, manager: Manager) -> None:
    manager.sources = [wire.ImageSource(node_id="n2", address="10.0.0.2:2376", manifest_digest="sha256:1")]
    agent = connect()
    with pytest.raises(Unavailable, match="no manager is connected"):
        await agent.session.locate("web:1", "")
    await manager.session()
    await eventually(lambda: agent.session.link.manager)
    assert await agent.session.locate("web:1", "") == Located((Source("n2", "10.0.0.2:2376", "sha256:1"),))
