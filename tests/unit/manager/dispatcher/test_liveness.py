"""Liveness over a real store and a clock that jumps: who is called dead, when, and who never is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from manager.control.action import change, commit, create, touched
from manager.dispatcher.liveness import GRACE_TIMEOUTS, Liveness
from manager.store.base import Conflict, Txn
from manager.store.mirror import Mirror
from manager.store.sqlite import SqliteStore
from shoal import defaults
from shoal.clock import ManualClock, SystemClock, settle
from shoal.errors import Exhausted, PermissionDenied
from shoal.model.base import Meta
from shoal.model.cluster import Cluster
from shoal.model.node import NodeDescription, NodeState, NodeStatus
from tests.unit.manager.conftest import node

TIMEOUT_S = defaults.CLUSTER.node_timeout_ns / 1e9
DESCRIPTION = NodeDescription(hostname="one", address="10.9.0.1")


class Store:
    """A real one whose disk can be full, and that knows when nobody writes."""

    def __init__(self, inner: SqliteStore) -> None:
        self._inner = inner
        self._writing = 0
        self.full = False
        self.idle = asyncio.Event()
        self.idle.set()

    async def txn_many(self, txns: Sequence[Txn]) -> list[int | Conflict]:
        if self.full:
            raise Exhausted("the disk is full")
        self._writing += 1
        self.idle.clear()
        try:
            return await self._inner.txn_many(txns)
        finally:
            self._writing -= 1
            if not self._writing:
                self.idle.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class Watch:
    """A liveness with its parts. `gone` is whom it called dead."""

    def __init__(self, store: Store, mirror: Mirror) -> None:
        self.store, self.mirror, self.clock = store, mirror, ManualClock()
        self.gone: list[str] = []
        self.liveness = Liveness(store=store, mirror=mirror, clock=self.clock, gone=self.gone.append)
        self._running = asyncio.create_task(self.liveness.run())

    def state(self, node_id: str = "w1") -> NodeState:
        return self.mirror.nodes[node_id].status.state

    async def advance(self, seconds: float) -> None:
        """In ticks, with time for the store, which works in threads, after each."""
        left = seconds
        while left > 0:
            await self.clock.advance(min(0.25, left))
            left -= 0.25
            await self.written()

    async def written(self) -> None:
        """Whatever was on its way to the store is in the mirror, and what followed from it too."""
        while True:
            await self.store.idle.wait()
            await self.mirror.reached((await self.store.read("/")).revision)
            await settle()
            if self.store.idle.is_set():
                return

    async def close(self) -> None:
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)


@pytest.fixture
async def watch(tmp_path: Path) -> AsyncIterator[Watch]:
    """Two nodes that were READY under an earlier manager."""
    store = Store(await SqliteStore.open(tmp_path / "store.db", clock=SystemClock()))
    mirror = Mirror()
    following = asyncio.create_task(mirror.run(store))
    cluster = Cluster(Meta("c1"), defaults.CLUSTER)
    done = await commit(store, [create(each, "test") for each in (cluster, node("w1"), node("w2"))])
    await mirror.reached(done.revision)
    made = Watch(store, mirror)
    yield made
    await made.close()
    following.cancel()
    await store.close()


async def test_silence_is_death_after_the_timeout_and_not_before(watch: Watch) -> None:
    await watch.liveness.connected("w1", DESCRIPTION)
    await watch.advance(TIMEOUT_S - 0.5)
    assert watch.state() is NodeState.READY
    await watch.advance(1)
    assert (watch.state(), watch.gone) == (NodeState.DOWN, ["w1"])
    assert watch.mirror.nodes["w1"].status.message == "nothing was heard of its agent"
    await watch.advance(3 * TIMEOUT_S)
    assert watch.gone == ["w1", "w2"]


async def test_every_sign_of_life_counts(watch: Watch) -> None:
    await watch.liveness.connected("w1", DESCRIPTION)
    for _ in range(4):
        await watch.advance(TIMEOUT_S - 1)
        watch.liveness.heard("w1")
    assert watch.state() is NodeState.READY


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


async def test_a_goodbye_is_an_end_at_once(watch: Watch) -> None:
    await watch.liveness.connected("w1", DESCRIPTION)
    await watch.liveness.left("w1")
    assert (watch.state(), watch.gone) == (NodeState.DOWN, [])


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
