"""Liveness over a real store and a clock that jumps: who is called dead, when, and who never is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from manager.control.action import change, commit, create, touched
from manager.control.tenure import LEASE_S, Tenure
from manager.dispatcher.judgement import ABSENCE_AT_MOST_S, ALONE_AT_MOST_S, GRACE_TIMEOUTS
from manager.dispatcher.liveness import Liveness
from manager.store.base import Conflict, Put, Txn
from manager.store.mirror import Mirror
from manager.store.sqlite.store import SqliteStore
from shoal import defaults
from shoal.clock import ManualClock, settle
from shoal.errors import Exhausted, PermissionDenied, Unavailable
from shoal.model.base import Meta
from shoal.model.cluster import Cluster
from shoal.model.node import Node, NodeDescription, NodeState, NodeStatus
from shoal.tasks import Group
from tests.unit.manager.conftest import node

TIMEOUT_S = defaults.CLUSTER.node_timeout_ns / 1e9
# As many writes as follow from each other: a lease, what stands under it, what that brings about.
_STEPS = 3
DESCRIPTION = NodeDescription(hostname="one", address="10.9.0.1")


class Store:
    """A real one whose disk can be full, or that can be out of reach."""

    def __init__(self, inner: SqliteStore) -> None:
        self._inner = inner
        self.full = False
        self.cut = False

    async def txn_many(self, txns: Sequence[Txn]) -> list[int | Conflict]:
        self._check_reach()
        if self.full:
            raise Exhausted("the disk is full")
        return await self._inner.txn_many(txns)

    async def grant(self, ttl_s: float) -> int:
        self._check_reach()
        return await self._inner.grant(ttl_s)

    async def keep_alive(self, lease: int) -> None:
        self._check_reach()
        await self._inner.keep_alive(lease)

    def _check_reach(self) -> None:
        if self.cut:
            raise Unavailable("the store does not answer")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class Clock(ManualClock):
    def stand_still(self, seconds: float) -> None:
        """Time goes on and nobody wakes: the process was stopped."""
        self._elapsed += seconds


class Watch:
    """Managers that share a store, each with its liveness; `gone` is whom they called dead. Time stands still."""

    liveness: Liveness

    def __init__(self, store: Store, mirror: Mirror, clock: Clock) -> None:
        self.store, self.mirror, self.clock = store, mirror, clock
        self.leader = "m1"
        self.gone: list[str] = []
        self._running: dict[str, asyncio.Task[None]] = {}

    async def manager(self, node_id: str) -> Liveness:
        """Begin one; returns once it serves."""
        tenure = Tenure(self.store, node_id=node_id, address=f"{node_id}:2377", clock=self.clock)
        liveness = Liveness(
            store=self.store,
            mirror=self.mirror,
            clock=self.clock,
            own_id=node_id,
            tenure=tenure,
            leads=lambda: self.leader == node_id,
            gone=self.gone.append,
        )

        async def run() -> None:
            async with Group() as group:
                group.start("tenure", tenure.run())
                await liveness.run()

        self._running[node_id] = asyncio.create_task(run())
        await tenure.begun()
        await self.written()
        return liveness

    async def kill(self, node_id: str) -> None:
        """As by kill -9: its lease runs out by itself."""
        running = self._running.pop(node_id)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    def state(self, node_id: str = "w1") -> NodeState:
        return self.mirror.nodes[node_id].status.state

    def holder(self, node_id: str = "w1") -> str:
        return self.mirror.nodes[node_id].status.manager_id

    async def advance(self, seconds: float) -> None:
        """In ticks, with time for the store, which works in threads, after each."""
        left = seconds
        while left > 0:
            await self.clock.advance(min(0.5, left))
            left -= 0.5
            await self.written()

    async def written(self) -> None:
        """Whatever was on its way to the store is in the mirror, and what followed from it too."""
        for _ in range(_STEPS):
            # The writer takes one after the other: what was asked before this is done.
            await self.mirror.reached(await self.store.txn(Txn(puts=(Put("/tick", b""),))))
            await settle()

    async def close(self) -> None:
        for node_id in list(self._running):
            await self.kill(node_id)


@pytest.fixture
async def watch(tmp_path: Path) -> AsyncIterator[Watch]:
    """Two nodes that were READY under an earlier process of the manager "m1", which serves."""
    clock = Clock()
    store = Store(await SqliteStore.open(tmp_path / "store.db", clock=clock))
    mirror = Mirror()
    following = asyncio.create_task(mirror.run(store))
    cluster = Cluster(Meta("c1"), defaults.CLUSTER)
    done = await commit(store, [create(each, "test") for each in (cluster, held("w1", "m1"), held("w2", "m1"))])
    await mirror.reached(done.revision)
    made = Watch(store, mirror, clock)
    made.liveness = await made.manager("m1")
    yield made
    await made.close()
    following.cancel()
    await store.close()


def held(id: str, by: str) -> Node:
    return msgspec.structs.replace(node(id), status=NodeStatus(NodeState.READY, "", 1, by))


async def test_silence_is_death_after_the_timeout_and_not_before(watch: Watch) -> None:
    await watch.liveness.connected("w1", DESCRIPTION)
    await watch.advance(TIMEOUT_S - 0.5)
    assert watch.state() is NodeState.READY
    await watch.advance(1)
    assert (watch.state(), watch.gone) == (NodeState.DOWN, ["w1"])
    assert watch.mirror.nodes["w1"].status.message == "nothing was heard of its agent"
    assert watch.holder() == ""
    await watch.advance(3 * TIMEOUT_S)
    assert watch.gone == ["w1", "w2"]


async def test_every_sign_of_life_counts(watch: Watch) -> None:
    await watch.liveness.connected("w1", DESCRIPTION)
    for _ in range(4):
        await watch.advance(TIMEOUT_S - 1)
        watch.liveness.heard("w1")
    assert watch.state() is NodeState.READY


async def test_a_node_that_has_moved_is_the_other_managers_whatever_its_older_session_says(watch: Watch) -> None:
    other = await watch.manager("m2")
    await watch.liveness.connected("w1", DESCRIPTION)
    await other.connected("w1", DESCRIPTION)
    await watch.liveness.described("w1", msgspec.structs.replace(DESCRIPTION, hostname="older"))
    assert (watch.holder(), watch.mirror.nodes["w1"].description.hostname) == ("m2", "one")
    await watch.liveness.left("w1")
    watch.liveness.broken("w1")
    for _ in range(3):
        other.heard("w1")
        await watch.advance(TIMEOUT_S - 1)
    assert (watch.state(), watch.holder()) == (NodeState.READY, "m2")


async def test_after_a_start_everybody_has_time_to_call(watch: Watch) -> None:
    await watch.liveness.adopt()
    assert watch.state() is NodeState.UNKNOWN
    await watch.advance(GRACE_TIMEOUTS * TIMEOUT_S - 1)
    assert watch.state() is NodeState.UNKNOWN
    await watch.advance(2)
    assert watch.state() is NodeState.DOWN


async def test_a_stream_that_breaks_shortens_the_wait_and_a_new_one_ends_it(watch: Watch) -> None:
    for id in ("w1", "w2"):
        await watch.liveness.connected(id, DESCRIPTION)
        watch.liveness.broken(id)
    await watch.advance(TIMEOUT_S / 2)
    await watch.liveness.connected("w2", DESCRIPTION)
    await watch.advance(TIMEOUT_S / 2)
    assert (watch.state("w1"), watch.state("w2")) == (NodeState.DOWN, NodeState.READY)


async def test_a_host_that_lives_without_its_agent_gets_no_new_tasks_and_is_waited_for_half_a_minute(
    watch: Watch,
) -> None:
    await watch.liveness.connected("w1", DESCRIPTION)
    watch.liveness.broken("w1")
    states = []
    for _ in range(int(ALONE_AT_MOST_S)):
        states.append(watch.state())
        watch.liveness.answered("w1")
        await watch.advance(1)
    assert list(dict.fromkeys(states)) == [NodeState.READY, NodeState.UNKNOWN]
    await watch.advance(0.5)
    assert watch.state() is NodeState.DOWN


async def test_a_host_that_answers_no_more_is_dead_after_the_timeout(watch: Watch) -> None:
    await watch.liveness.connected("w1", DESCRIPTION)
    watch.liveness.broken("w1")
    await watch.advance(1)
    watch.liveness.answered("w1")
    await watch.advance(TIMEOUT_S - 0.5)
    assert watch.state() is not NodeState.DOWN
    await watch.advance(1)
    assert watch.state() is NodeState.DOWN


async def test_an_agent_that_is_back_ends_the_doubt(watch: Watch) -> None:
    await watch.liveness.connected("w1", DESCRIPTION)
    watch.liveness.broken("w1")
    for _ in range(5):
        watch.liveness.answered("w1")
        await watch.advance(1)
    assert watch.state() is NodeState.UNKNOWN
    await watch.liveness.connected("w1", DESCRIPTION)
    watch.liveness.answered("w1")
    await watch.advance(1)
    assert watch.state() is NodeState.READY


async def test_a_goodbye_is_an_end_at_once(watch: Watch) -> None:
    await watch.liveness.connected("w1", DESCRIPTION)
    await watch.liveness.left("w1")
    assert (watch.state(), watch.gone) == (NodeState.DOWN, [])


async def test_an_agent_that_is_started_again_has_as_long_as_it_asked_for(watch: Watch) -> None:
    await watch.liveness.connected("w1", DESCRIPTION)
    await watch.liveness.left("w1", back_within_s=60)
    assert (watch.state(), watch.holder()) == (NodeState.UNKNOWN, "m1")
    await watch.advance(59)
    assert watch.state() is NodeState.UNKNOWN
    await watch.advance(2)
    assert watch.state() is NodeState.DOWN


async def test_an_agent_that_is_started_again_is_ready_once_it_calls(watch: Watch) -> None:
    await watch.liveness.connected("w1", DESCRIPTION)
    await watch.liveness.left("w1", back_within_s=60)
    await watch.liveness.connected("w1", DESCRIPTION)
    assert watch.state() is NodeState.READY
    watch.liveness.broken("w1")
    await watch.advance(TIMEOUT_S)
    assert watch.state() is NodeState.DOWN


async def test_nobody_is_waited_for_without_end(watch: Watch) -> None:
    await watch.liveness.connected("w1", DESCRIPTION)
    await watch.liveness.left("w1", back_within_s=1e6)
    await watch.advance(ABSENCE_AT_MOST_S + 1)
    assert watch.state() is NodeState.DOWN


async def test_a_full_disk_delays_the_news_and_ends_nothing(watch: Watch) -> None:
    await watch.liveness.connected("w1", DESCRIPTION)
    watch.store.full = True
    await watch.advance(TIMEOUT_S + 2)
    assert watch.state() is NodeState.READY
    watch.store.full = False
    await watch.advance(0.5)
    assert watch.state() is NodeState.DOWN


async def test_a_connected_node_that_was_written_down_as_dead_is_ready_again(watch: Watch) -> None:
    await watch.liveness.connected("w1", DESCRIPTION)
    late = touched(watch.mirror.nodes["w1"], 1, status=NodeStatus(NodeState.DOWN, "", 1))
    await watch.mirror.reached((await commit(watch.store, [change(late, "written a moment too late")])).revision)
    await watch.advance(0.5)
    assert watch.state() is NodeState.READY


async def test_a_node_that_was_removed_cannot_connect(watch: Watch) -> None:
    with pytest.raises(PermissionDenied, match="was removed from the cluster"):
        await watch.liveness.connected("stranger", DESCRIPTION)


async def test_only_who_holds_a_session_judges_it(watch: Watch) -> None:
    other = await watch.manager("m2")
    await other.connected("w1", DESCRIPTION)
    await watch.liveness.connected("w2", DESCRIPTION)
    assert (watch.holder("w1"), watch.holder("w2")) == ("m2", "m1")
    for _ in range(8):
        await watch.advance(TIMEOUT_S / 2)
        other.heard("w1")
        watch.liveness.heard("w2")
    assert (watch.state("w1"), watch.state("w2"), watch.gone) == (NodeState.READY, NodeState.READY, [])
    await watch.advance(TIMEOUT_S + 0.5)
    assert (watch.state("w1"), watch.state("w2")) == (NodeState.DOWN, NodeState.DOWN)


async def test_the_nodes_of_a_manager_that_died_have_time_to_call_another(watch: Watch) -> None:
    await watch.advance(GRACE_TIMEOUTS * TIMEOUT_S)
    other = await watch.manager("m2")
    for id in ("w1", "w2"):
        await other.connected(id, DESCRIPTION)
    watch.gone.clear()
    await watch.kill("m2")
    await watch.advance(LEASE_S + TIMEOUT_S - 1)
    await watch.liveness.connected("w2", DESCRIPTION)
    assert watch.state("w1") is NodeState.READY
    await watch.advance(1.5)
    assert (watch.state("w1"), watch.state("w2")) == (NodeState.DOWN, NodeState.READY)
    assert watch.gone == ["w1"]


async def test_who_does_not_lead_leaves_the_nodes_of_others_alone(watch: Watch) -> None:
    await watch.advance(GRACE_TIMEOUTS * TIMEOUT_S)
    other = await watch.manager("m2")
    await other.connected("w1", DESCRIPTION)
    watch.leader = "m3"
    await watch.kill("m2")
    await watch.advance(5 * TIMEOUT_S)
    assert watch.state("w1") is NodeState.READY
    watch.leader = "m1"  # which saw it all
    await watch.advance(0.5)
    assert watch.state("w1") is NodeState.DOWN


async def test_a_session_that_moved_is_no_business_of_its_former_manager(watch: Watch) -> None:
    await watch.liveness.connected("w1", DESCRIPTION)
    other = await watch.manager("m2")
    await other.connected("w1", DESCRIPTION)
    watch.liveness.broken("w1")
    for _ in range(6):
        await watch.advance(TIMEOUT_S - 1)
        other.heard("w1")
    assert (watch.state("w1"), watch.holder("w1")) == (NodeState.READY, "m2")


async def test_a_manager_that_lost_the_store_has_seen_nothing(watch: Watch) -> None:
    await watch.liveness.connected("w1", DESCRIPTION)
    watch.store.cut = True
    await watch.advance(5 * TIMEOUT_S)
    watch.store.cut = False
    await watch.advance(GRACE_TIMEOUTS * TIMEOUT_S - 1)
    assert watch.state("w1") is NodeState.READY
    await watch.advance(2)
    assert watch.state("w1") is NodeState.DOWN


async def test_a_manager_that_stood_still_gives_everybody_that_much_longer(watch: Watch) -> None:
    await watch.liveness.connected("w1", DESCRIPTION)
    await watch.advance(TIMEOUT_S - 1)
    watch.clock.stand_still(3)
    await watch.advance(0.5)
    assert watch.state() is NodeState.READY
    await watch.advance(1)
    assert watch.state() is NodeState.DOWN
