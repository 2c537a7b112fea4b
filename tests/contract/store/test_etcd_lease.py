"""A manager's tenure over etcd: kept over etcd's restart, and over by the manager's own clock behind a cut link."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from manager.control.tenure import Tenure
from manager.store.etcd.store import EtcdStore
from tests.contract.store.steps import take
from tests.contract.store.witness import CLOCK, opened


@contextlib.asynccontextmanager
async def serving(store: EtcdStore) -> AsyncIterator[Tenure]:
    tenure = Tenure(store, node_id="n1", address="127.0.0.1:2377", clock=CLOCK)
    running = asyncio.create_task(tenure.run())
    try:
        yield tenure
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_tenure_goes_on_over_a_restart_of_etcd(member):
    async with opened(member.client) as store, serving(store) as tenure:
        lease = await tenure.begun()
        await asyncio.to_thread(member.kill)
        member.start()
        await asyncio.to_thread(member.ready)
        async with asyncio.timeout(60):
            while tenure.silent_s > 0.5:
                await asyncio.sleep(0.02)
        assert tenure.lease == lease
        assert len((await store.read("/manager/")).records) == 1


async def test_behind_a_cut_link_a_tenure_is_over_before_etcd_ends_it(member, link):
    async with opened(link.address) as store, opened(member.client) as other, serving(store) as tenure:
        lease = await tenure.begun()
        revision = (await other.read("/")).revision
        over = asyncio.create_task(tenure.over(lease))
        ended = asyncio.create_task(take(other.watch("/manager/", after=revision), 1))
        link.cut()
        first, _ = await asyncio.wait((over, ended), return_when=asyncio.FIRST_COMPLETED)
        assert first == {over}
        (commit,) = await ended
        assert commit.changes[0].value is None
        link.mend()
        async with asyncio.timeout(60):
            assert await tenure.begun() != lease
