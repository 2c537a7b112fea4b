"""What the way to etcd does: nothing is lost, nothing comes twice, and trouble is told in time."""

import asyncio
import contextlib
import logging
import time

import pytest

from manager.store.base import Guard, Put, Txn
from manager.store.etcd import method
from manager.store.etcd.client import Client
from manager.store.etcd.settings import EtcdSettings
from manager.store.etcd.store import EtcdStore
from manager.store.etcd.transaction import request_of
from shoal.errors import Compacted, Unavailable
from tests import etcd
from tests.contract.store.steps import put, take
from tests.contract.store.witness import CLOCK, REFUSED_S, TOLD_S, at_last, opened, told, watched
from tests.link import linked


async def test_five_hundred_writes_while_the_link_is_cut(member, link):
    async with opened(link.address) as store, opened(member.client) as other, watched(store) as watcher:
        await other.txn(put("/before"))
        await watcher.until("/before")
        link.cut()
        keys = [f"/{number}" for number in range(500)]
        for key in keys:
            await other.txn(put(key))
        link.mend()
        await watcher.until(keys[-1])
        assert watcher.keys == ["/before", *keys]


async def test_the_link_breaks_again_and_again_while_20_000_revisions_are_caught_up_with(member, link):
    async with opened(link.address) as store, opened(member.client) as other:
        start = (await other.read("/")).revision
        await written(other, 20_000)
        link.break_after(400_000)
        async with asyncio.timeout(60):
            keys, last = [], start
            async for commit in store.watch("/", after=start):
                assert commit.revision > last
                last = commit.revision
                keys += [change.key for change in commit.changes]
                if len(keys) >= 20_000:
                    break
        assert link.broken >= 3
        assert len(set(keys)) == len(keys) == 20_000


async def test_history_is_compacted_while_the_link_is_cut(member, link):
    async with opened(link.address) as store, opened(member.client) as other:
        start = await other.txn(put("/a"))
        watch = store.watch("/", after=start)
        await other.txn(put("/a"))
        await take(watch, 1)
        link.cut()
        for _ in range(10):
            last = await other.txn(put("/a"))
        await other.compact(last)
        link.mend()
        with pytest.raises(Compacted):
            await take(watch, 1)
        again = await store.read("/")
        after = await other.txn(put("/b"))
        assert [each.revision for each in await take(store.watch("/", after=again.revision), 1)] == [after]


async def test_a_link_that_lets_nothing_through_is_left_for_another(member, link):
    async with (
        linked(member.client) as second,
        opened(link.address, second.address) as store,
        watched(store) as watcher,
    ):
        await store.txn(put("/before"))
        await watcher.until("/before")
        link.freeze()
        async with opened(member.client) as other:
            await other.txn(put("/meanwhile"))
        await watcher.until("/meanwhile", within_s=TOLD_S)
        await store.txn(put("/after"))
        await watcher.until("/after")
        assert watcher.keys == ["/before", "/meanwhile", "/after"]


async def test_a_link_that_lets_nothing_through_is_told_and_mends_itself(link):
    async with opened(link.address) as store, watched(store) as watcher:
        await store.txn(put("/before"))
        link.freeze()
        began = time.monotonic()
        with pytest.raises(Unavailable, match="no answer in time"):
            await store.txn(put("/during"))
        assert time.monotonic() - began < REFUSED_S
        await told(store, trouble=True)
        assert "no answer in time" in store.trouble and store.silent_s > 2
        link.thaw()
        await told(store, trouble=False)
        await store.txn(put("/after"))
        await watcher.until("/after")
        assert watcher.keys[0] == "/before" and len(watcher.keys) == len(set(watcher.keys))


@contextlib.asynccontextmanager
async def two_ways(member, link):
    """A store that goes by `link` first, and may go another way; and who watches it."""
    async with (
        linked(member.client) as second,
        opened(link.address, second.address) as store,
        watched(store) as watcher,
    ):
        await store.txn(put("/first"))
        await watcher.until("/first")
        yield store, watcher


async def test_a_guarded_write_that_did_not_arrive_goes_another_way(member, link):
    async with two_ways(member, link) as (store, watcher):
        link.freeze()
        results = await store.txn_many([put("/a", guard=0), put("/b", guard=0)])
        assert [type(result) for result in results] == [int, int]
        link.thaw()
        await at_last(store, "/last")
        await watcher.until("/last")
        assert sorted(watcher.keys[1:-1]) == ["/a", "/b"]


async def test_a_guarded_write_whose_answer_is_lost_has_happened_once(member, link):
    """Sent again, it meets its own doing, which looks like a conflict: so nothing is known."""
    async with two_ways(member, link) as (store, watcher):
        link.freeze(answers_only=True)
        with pytest.raises(Unavailable):
            await store.txn(put("/a", guard=0))
        link.thaw()
        await at_last(store, "/last")
        await watcher.until("/last")
        assert watcher.keys == ["/first", "/a", "/last"]


async def test_a_slow_link_is_only_slow(link):
    async with opened(link.address) as store, watched(store) as watcher:
        link.slow(0.05)
        for number in range(10):
            await store.txn(put(f"/{number}"))
        await watcher.until("/9")
        assert watcher.keys == [f"/{number}" for number in range(10)]
        assert not store.trouble


async def test_nobody_there_is_said_with_each_endpoint(tmp_path):
    first, second = (f"127.0.0.1:{port}" for port in etcd.free_ports(2))
    with pytest.raises(Unavailable) as refused:
        async with opened(first, second):
            pass
    assert f"{first}: " in refused.value.message and f"{second}: " in refused.value.message
    assert "Connection refused" in refused.value.message


async def written(store: EtcdStore, count: int) -> None:
    """So many revisions of one key each; `txn` would share them."""
    numbers = iter(range(count))

    async def some() -> None:
        for number in numbers:
            request = request_of([Txn((Guard(f"/{number}", 0),), (Put(f"/{number}", b"x" * 50),))], store._keyspace)
            await store.client.ask(method.TXN, request, again=False, timeout_s=20)

    await asyncio.gather(*(some() for _ in range(64)))


async def test_an_outage_is_told_once_however_often_it_is_met(caplog):
    caplog.set_level(logging.INFO, "manager.store.etcd.client")
    addresses = tuple(f"127.0.0.1:{port}" for port in etcd.free_ports(2))
    client = Client(EtcdSettings(addresses), CLOCK)
    for _ in range(4):
        with pytest.raises(Unavailable):
            await client.look(timeout_s=0.4)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 3, lines
    assert sum("given up" in text for text in lines) == 2
    await client.close()
