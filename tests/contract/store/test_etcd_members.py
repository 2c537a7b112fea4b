"""What becomes of etcd's processes: nothing is lost, nothing comes twice, and trouble is told in time."""

import asyncio
import time

import pytest

from shoal.errors import Unavailable
from tests.contract.store.steps import put
from tests.contract.store.witness import REFUSED_S, TOLD_S, Scribe, at_last, opened, told, watched


async def test_etcd_killed_and_started_again_under_a_watch(member):
    async with opened(member.client) as store, watched(store) as watcher:
        scribe = Scribe(store)
        for _ in range(3):
            await scribe.more(80)
            await asyncio.to_thread(member.kill)
            member.start()
        await scribe.more(80)
        await scribe.stop()
        await at_last(store, "/last")
        await watcher.until("/last")
        watcher.saw_all(scribe.promised, tried=scribe.tried | {"/last"})
        kept = {record.key for record in (await store.read("/")).records}
        assert scribe.promised <= kept


async def test_members_killed_in_turn_under_a_watch(members):
    async with opened(*(member.client for member in members)) as store, watched(store) as watcher:
        scribe = Scribe(store)
        for member in members:
            await scribe.more(40)
            await asyncio.to_thread(member.kill)
            await scribe.more(10)
            member.start(members, existing=True)
            await asyncio.to_thread(member.ready)
        await scribe.stop()
        await at_last(store, "/last")
        await watcher.until("/last")
        watcher.saw_all(scribe.promised, tried=scribe.tried | {"/last"})


async def test_quorum_lost_is_told_reads_nothing_into_it_and_ends_by_itself(members):
    async with opened(members[0].client) as store, watched(store) as watcher:
        await store.txn(put("/before"))
        await watcher.until("/before")
        for member in members[1:]:
            await asyncio.to_thread(member.kill)
        began = time.monotonic()
        with pytest.raises(Unavailable, match="etcd does not answer"):
            await store.txn(put("/refused"))
        assert time.monotonic() - began < REFUSED_S
        await told(store, trouble=True)
        assert members[0].client in store.trouble
        for member in members[1:]:
            member.start(members, existing=True)
        await told(store, trouble=False)
        await at_last(store, "/after")
        await watcher.until("/after")
        assert watcher.keys[0] == "/before" and set(watcher.keys) <= {"/before", "/refused", "/after"}


async def test_a_member_that_hangs_is_left(members):
    async with (
        opened(*(member.client for member in members)) as store,
        opened(members[1].client) as other,
        watched(store) as watcher,
    ):
        await store.txn(put("/before"))
        await watcher.until("/before")
        members[0].freeze()
        try:
            await at_last(other, "/meanwhile")
            await watcher.until("/meanwhile", within_s=TOLD_S)
            await store.txn(put("/after"))
            await watcher.until("/after")
        finally:
            members[0].thaw()
        assert [key for key in watcher.keys if key != "/meanwhile"] == ["/before", "/after"]
