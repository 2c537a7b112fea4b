import asyncio

import pytest

from manager.store.base import Put, Txn
from manager.store.lease import Hold
from manager.store.sqlite import SqliteStore
from shoal.clock import ManualClock
from shoal.errors import NotFound


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
async def store(tmp_path, clock):
    store = await SqliteStore.open(tmp_path / "store.db", clock=clock)
    yield store
    await store.close()


async def test_a_lease_lives_as_long_as_it_is_kept(store, clock):
    hold = await Hold.take(store, ttl_s=6, clock=clock)
    await store.txn(Txn(puts=(Put("/leader", b"me", hold.lease),)))
    keeping = asyncio.create_task(hold.keep())
    for _ in range(10):
        await clock.advance(5)
        assert hold.left_s > 0
    assert len((await store.read("/leader")).records) == 1
    keeping.cancel()


async def test_who_keeps_a_lease_that_was_ended_hears_it_at_the_next_renewal(store, clock):
    hold = await Hold.take(store, ttl_s=6, clock=clock)
    keeping = asyncio.create_task(hold.keep())
    await store.revoke(hold.lease)
    await clock.advance(2.1)
    with pytest.raises(NotFound, match="No such lease"):
        await keeping


async def test_a_lease_that_the_store_cannot_renew_is_lost_when_its_time_is_over(store, clock):
    hold = await Hold.take(store, ttl_s=6, clock=clock)
    keeping = asyncio.create_task(hold.keep())
    await store.close()
    await clock.advance(5.9)
    assert not keeping.done()
    await clock.advance(0.2)
    with pytest.raises(NotFound, match=r"is lost: the store did not renew it within 6 s"):
        await keeping


async def test_released_its_keys_are_gone_at_once(store, clock):
    hold = await Hold.take(store, ttl_s=6, clock=clock)
    await store.txn(Txn(puts=(Put("/leader", b"me", hold.lease),)))
    await hold.release()
    assert (await store.read("/leader")).records == ()
