"""The mesh: one wish at a time, tasks that end leave the balance, failures are tried again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from agent.mesh import Mesh, balanced
from shoal.clock import settle
from shoal.errors import ShoalError
from shoal.model.assignment import NetworkAssignment
from shoal.model.base import Meta
from shoal.model.network import Backend, Endpoint, Network, NetworkSpec
from tests.unit.agent.conftest import eventually

WEB = Endpoint(service_id="s1", network_id="n1", backends=(Backend("t1", "a"), Backend("t2", "b")))


class Room:
    """Takes wishes; may fail, and may be slow."""

    def __init__(self) -> None:
        self.wishes: list[tuple[Endpoint, ...]] = []
        self.failures = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = asyncio.Event()

    async def assign(self, networks: Sequence[NetworkAssignment], endpoints: Sequence[Endpoint]) -> None:
        self.asked.set()
        await self.gate.wait()
        if self.failures:
            self.failures -= 1
            raise ShoalError("no such device")
        self.wishes.append(tuple(endpoints))


@pytest.fixture
def room() -> Room:
    return Room()


@pytest.fixture
async def mesh(room: Room) -> AsyncIterator[Mesh]:
    mesh = Mesh(room)
    running = asyncio.create_task(mesh.run())
    yield mesh
    running.cancel()


async def test_a_leaving_task_is_out_of_the_balance_when_leave_returns(mesh: Mesh, room: Room) -> None:
    await mesh.want((), (WEB,))
    await mesh.settled()
    assert await mesh.leave("t1", "s1")
    assert [backend.task_id for backend in room.wishes[-1][0].backends] == ["t2"]


async def test_a_task_waits_until_its_host_is_on_its_networks(mesh: Mesh, room: Room) -> None:
    await mesh.joined(("bridge", "host"))
    waiting = asyncio.create_task(mesh.joined(("back", "bridge")))
    await mesh.want((), (WEB,))
    await mesh.settled()
    room.gate.clear()
    back = NetworkAssignment(Network(Meta("n7"), NetworkSpec(name="back")))
    await mesh.want((back,), (WEB,))
    await settle()
    assert not waiting.done()
    room.gate.set()
    await waiting
    await mesh.joined(("n7",))


async def test_a_task_nobody_balances_leaves_at_once(mesh: Mesh, room: Room) -> None:
    assert not await mesh.leave("t9", "s9")
    assert room.wishes == []


async def test_what_has_left_stays_out_of_later_wishes_until_it_is_gone(mesh: Mesh, room: Room) -> None:
    await mesh.leave("t1", "s1")
    await mesh.want((), (WEB,))
    await mesh.settled()
    assert len(room.wishes[-1][0].backends) == 1
    mesh.forget("t1")
    await mesh.want((), (WEB,))
    await mesh.settled()
    assert room.wishes[-1] == (WEB,)


async def test_wishes_that_come_while_one_is_carried_out_become_one(mesh: Mesh, room: Room) -> None:
    room.gate.clear()
    await mesh.want((), ())
    await room.asked.wait()
    for _ in range(10):
        await mesh.want((), (WEB,))
    room.gate.set()
    await mesh.settled()
    assert room.wishes == [(), (WEB,)]


async def test_a_failed_wish_is_tried_again_and_holds_nobody_up(
    mesh: Mesh, room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    room.failures = 2
    await mesh.want((), (WEB,))
    await mesh.settled()
    await eventually(lambda: room.wishes == [(WEB,)])
    assert caplog.text.count("no such device") == 1


def test_balanced_leaves_other_endpoints_as_they_are() -> None:
    other = Endpoint(service_id="s2", network_id="n1", backends=(Backend("t3", "a"),))
    assert balanced((WEB, other), {"t1", "t2"}) == (Endpoint(service_id="s1", network_id="n1"), other)
