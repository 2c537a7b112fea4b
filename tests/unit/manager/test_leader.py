"""Who leads, of several managers over one store: one at a time, handed over at once or after the lease, and fenced."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from manager.control.action import LeadershipLost, commit, create
from manager.control.tenure import LEASE_S, Tenure
from manager.leader import Leader
from manager.store.base import Guard
from manager.store.mirror import Mirror
from manager.store.sqlite.store import SqliteStore
from shoal.clock import ManualClock
from shoal.tasks import Group
from tests.unit.manager.conftest import node


class Manager:
    """One that does nothing but stand for election; `fences` are those that it led with."""

    def __init__(self, store: SqliteStore, clock: ManualClock, node_id: str) -> None:
        self.mirror = Mirror()
        self.tenure = Tenure(store, node_id=node_id, address=node_id, clock=clock)
        self.leader = Leader(store, self.mirror, self.tenure, node_id=node_id, work=self._lead, clock=clock)
        self.fences: list[Guard] = []
        self.seen = 0
        self._store = store
        self._running = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async with Group() as group:
            group.start("mirror", self.mirror.run(self._store))
            group.start("tenure", self.tenure.run())
            await self.leader.run()

    async def _lead(self, fence: tuple[Guard, ...]) -> None:
        self.fences += fence
        self.seen = self.mirror.revision
        await asyncio.Event().wait()

    async def kill(self) -> None:
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)


class Election:
    def __init__(self, store: SqliteStore, clock: ManualClock) -> None:
        self.store, self.clock = store, clock
        self.managers: dict[str, Manager] = {}

    async def stand(self, node_id: str) -> Manager:
        made = self.managers[node_id] = Manager(self.store, self.clock, node_id)
        await made.tenure.begun()
        return made

    async def won(self, manager: Manager) -> None:
        async with asyncio.timeout(60):
            while not manager.leader.leads:
                await asyncio.sleep(0.01)
        assert [each for each in self.managers.values() if each.leader.leads] == [manager]


@pytest.fixture
async def election(tmp_path: Path) -> AsyncIterator[Election]:
    clock = ManualClock()
    made = Election(await SqliteStore.open(tmp_path / "store.db", clock=clock), clock)
    yield made
    for manager in made.managers.values():
        await manager.kill()
    await made.store.close()


async def test_one_leads_and_the_others_know_who(election: Election) -> None:
    first = await election.stand("m1")
    await election.won(first)
    second = await election.stand("m2")
    async with asyncio.timeout(60):
        while second.leader.holder != "m1":
            await asyncio.sleep(0.01)
    assert not second.leader.leads


async def test_a_polite_end_hands_over_at_once(election: Election) -> None:
    first = await election.stand("m1")
    await election.won(first)
    second = await election.stand("m2")
    await first.tenure.end()
    await election.won(second)


async def test_after_a_death_another_leads_once_the_lease_is_over(election: Election) -> None:
    first = await election.stand("m1")
    await election.won(first)
    second = await election.stand("m2")
    await first.kill()
    del election.managers["m1"]
    await election.clock.advance(LEASE_S / 2)
    assert not second.leader.leads
    await election.clock.advance(LEASE_S / 2 + 1)
    await election.won(second)


async def test_a_new_leader_has_seen_all_that_was_written_and_the_old_one_writes_no_more(election: Election) -> None:
    first = await election.stand("m1")
    await election.won(first)
    second = await election.stand("m2")
    await commit(election.store, [create(node("w1"), "test")], tuple(first.fences))
    await first.tenure.end()
    await election.won(second)
    assert "w1" in second.mirror.nodes
    assert second.seen >= second.fences[0].revision
    with pytest.raises(LeadershipLost):
        await commit(election.store, [create(node("w2"), "test")], tuple(first.fences))


async def test_another_process_of_the_same_manager_need_not_wait(election: Election) -> None:
    first = await election.stand("m1")
    await election.won(first)
    await first.kill()
    again = await election.stand("m1")
    await election.won(again)
    assert again.fences != first.fences
