"""A lease of etcd's that is kept: over etcd's restart, and lost by its holder's own clock behind a cut link."""

import asyncio

import pytest

from manager.store.lease import Hold
from shoal.errors import NotFound
from tests.contract.store.steps import put, take
from tests.contract.store.witness import CLOCK, opened


async def test_a_lease_is_kept_over_a_restart_of_etcd(member):
    async with opened(member.client) as store:
        hold = await Hold.take(store, ttl_s=8, clock=CLOCK)
        await store.txn(put("/leader", lease=hold.lease))
        keeping = asyncio.create_task(hold.keep())
        await asyncio.to_thread(member.kill)
        await asyncio.sleep(2)
        member.start()
        await asyncio.to_thread(member.ready)
        left_s = hold.left_s
        async with asyncio.timeout(8):
            while hold.left_s <= left_s:
                await asyncio.sleep(0.05)
        assert not keeping.done()
        assert len((await store.read("/leader")).records) == 1
        keeping.cancel()


async def test_behind_a_cut_link_a_lease_is_lost_by_our_own_clock_before_etcd_ends_it(member, link):
    async with opened(link.address) as store, opened(member.client) as other:
        hold = await Hold.take(store, ttl_s=3, clock=CLOCK)
        revision = await store.txn(put("/leader", lease=hold.lease))
        keeping = asyncio.create_task(hold.keep())
        ended = asyncio.create_task(take(other.watch("/leader", after=revision), 1))
        link.cut()
        first, _ = await asyncio.wait((keeping, ended), return_when=asyncio.FIRST_COMPLETED)
        assert first == {keeping}
        with pytest.raises(NotFound, match="is lost"):
            await keeping
        (commit,) = await ended
        assert commit.changes[0].value is None
