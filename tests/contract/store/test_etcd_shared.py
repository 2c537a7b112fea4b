"""An etcd that others use too."""

import asyncio

from msgspec.structs import replace

from manager.store.base import Guard, Put, Txn
from manager.store.etcd.endpoint import WATCH_BYTES
from manager.store.mirror import Mirror
from tests.contract.store.steps import put, take
from tests.contract.store.witness import opened, watched


async def test_others_changes_are_not_ours(plain_etcd):
    async with (
        opened(replace(plain_etcd, prefix="/ours")) as ours,
        opened(replace(plain_etcd, prefix="/ours-not")) as theirs,
        watched(ours) as watcher,
    ):
        await theirs.txn(put("/theirs"))
        await ours.txn(put("/ours"))
        await watcher.until("/ours")
        assert watcher.keys == ["/ours"]
        assert [record.key for record in (await ours.read("/")).records] == ["/ours"]


async def test_history_that_is_too_large_for_one_message_comes_in_parts(member):
    """A part ends in the middle of a revision, since each of these is larger than a part may be."""
    async with opened(member.client) as store:
        start = await store.revision()
        count = WATCH_BYTES // 900_000 + 5
        for number in range(count):
            await store.txn(Txn(puts=tuple(Put(f"/{number}/{place}", b"x" * 100_000) for place in range(9))))
        commits = await take(store.watch("/", after=start), count)
        assert [len(commit.changes) for commit in commits] == [9] * count
        assert [commit.changes[0].key for commit in commits] == [f"/{number}/0" for number in range(count)]
        last = await store.txn(put("/last"))
        assert [each.revision for each in await take(store.watch("/", after=commits[-1].revision), 1)] == [last]


async def test_a_transaction_without_a_change_returns_what_a_mirror_reaches(plain_etcd):
    """Although etcd's revision was last raised by somebody whose changes no mirror of ours sees."""
    async with (
        opened(replace(plain_etcd, prefix="/quiet")) as ours,
        opened(replace(plain_etcd, prefix="/loud")) as theirs,
    ):
        mirror = Mirror()
        following = asyncio.create_task(mirror.run(ours))
        first = await ours.txn(put("/a"))
        foreign = await theirs.txn(put("/theirs"))
        async with asyncio.timeout(60):
            for txn in (Txn((Guard("/a", first),)), Txn(deletes=("/never",))):
                revision = await ours.txn(txn)
                assert revision > foreign
                await mirror.reached(revision)
        assert [record.key for record in (await ours.read("/")).records] == ["/a"]
        following.cancel()
