"""What any store promises, whatever is behind it (`manager.store.base`)."""

import asyncio
import contextlib
import itertools

import pytest

from manager.store.base import MAX_GUARDS, MAX_OPS, Conflict, Guard, Put, Txn
from shoal.errors import Compacted, InvalidArgument
from tests.contract.store.steps import put, take, take_changes

# Transactions and guards


async def test_each_change_has_a_higher_revision(store):
    first = await store.txn(put("/a"))
    second = await store.txn(put("/b"))
    assert 0 < first < second
    assert (await store.read("/")).revision == second


async def test_a_transaction_is_all_or_nothing(store):
    await store.txn(put("/a", b"1"))
    with pytest.raises(Conflict) as refused:
        await store.txn(Txn((Guard("/a", 999),), (Put("/b", b"2"),), ("/a",)))
    assert refused.value.keys == ("/a",)
    assert [(record.key, record.value) for record in (await store.read("/")).records] == [("/a", b"1")]


async def test_guard_zero_means_must_not_exist(store):
    await store.txn(put("/a", guard=0))
    with pytest.raises(Conflict):
        await store.txn(put("/a", guard=0))


async def test_a_guard_holds_at_the_last_write_only(store):
    first = await store.txn(put("/a", b"1"))
    second = await store.txn(put("/a", b"2", guard=first))
    with pytest.raises(Conflict):
        await store.txn(put("/a", b"3", guard=first))
    await store.txn(put("/a", b"3", guard=second))


async def test_a_deleted_key_is_as_if_it_never_was(store):
    await store.txn(put("/a"))
    await store.txn(Txn(deletes=("/a",)))
    revision = await store.txn(put("/a", guard=0))
    record = (await store.read("/a")).records[0]
    assert record.create_revision == record.mod_revision == revision


async def test_a_conflict_names_every_key_in_the_way(store):
    await store.txn(put("/a"))
    await store.txn(put("/b"))
    with pytest.raises(Conflict) as refused:
        await store.txn(Txn((Guard("/a", 0), Guard("/b", 0), Guard("/c", 0)), (Put("/d", b""),)))
    assert set(refused.value.keys) == {"/a", "/b"}


async def test_a_record_remembers_when_it_was_made(store):
    created = await store.txn(put("/a", b"1"))
    changed = await store.txn(put("/a", b"2"))
    record = (await store.read("/a")).records[0]
    assert (record.create_revision, record.mod_revision, record.value) == (created, changed, b"2")


async def test_without_a_change_the_revision_stays(store):
    revision = await store.txn(put("/a"))
    assert await store.txn(Txn((Guard("/a", revision),))) == revision
    assert await store.txn(Txn(deletes=("/never",))) == revision


async def test_what_is_too_much_is_refused_by_name(store):
    with pytest.raises(InvalidArgument, match="split it"):
        await store.txn(Txn(puts=tuple(Put(f"/{i}", b"") for i in range(MAX_OPS + 1))))
    with pytest.raises(InvalidArgument, match="split it"):
        await store.txn(Txn(tuple(Guard(f"/{i}", 0) for i in range(MAX_GUARDS + 1)), (Put("/a", b""),)))
    with pytest.raises(InvalidArgument, match="bytes"):
        await store.txn(put("/a", b"x" * 1_000_001))
    with pytest.raises(InvalidArgument, match="twice"):
        await store.txn(Txn(puts=(Put("/a", b""),), deletes=("/a",)))
    assert (await store.read("/")).records == ()


async def test_the_greatest_transaction_is_taken(store):
    guards = tuple(Guard(f"/{i}", 0) for i in range(MAX_GUARDS))
    await store.txn(Txn(guards, tuple(Put(f"/{i}", b"") for i in range(MAX_OPS))))
    assert len((await store.read("/")).records) == MAX_OPS


async def test_many_transactions_conflict_each_for_itself(store):
    taken = await store.txn(put("/b"))
    results = await store.txn_many([put("/a", guard=0), put("/b", guard=0), put("/c", guard=0)])
    assert isinstance(results[0], int) and results[0] > taken
    assert isinstance(results[1], Conflict) and results[1].keys == ("/b",)
    assert isinstance(results[2], int)
    assert [record.key for record in (await store.read("/")).records] == ["/a", "/b", "/c"]


async def test_many_transactions_that_touch_each_other_happen_in_order(store):
    first = await store.txn(put("/a"))
    results = await store.txn_many(
        [
            put("/a", b"2", guard=first),
            put("/a", b"3", guard=first),
            Txn((Guard("/b", 0),), (Put("/c", b""),)),
            put("/b", guard=0),
            Txn((Guard("/b", 0),), (Put("/d", b""),)),
        ]
    )
    assert [isinstance(result, Conflict) for result in results] == [False, True, False, False, True]
    assert [record.value for record in (await store.read("/a")).records] == [b"2"]


async def test_guards_that_read_what_the_other_writes_cannot_both_hold(store):
    """Each of two would be right alone; together they are a write skew."""
    taken = await store.txn(Txn(puts=(Put("/x", b"on call"), Put("/y", b"on call"))))
    leaving = [
        Txn((Guard("/y", taken),), (Put("/x", b"off"),)),
        Txn((Guard("/x", taken),), (Put("/y", b"off"),)),
    ]
    results = await asyncio.gather(*(store.txn(each) for each in leaving), return_exceptions=True)
    assert sum(isinstance(result, Conflict) for result in results) == 1


async def test_five_hundred_at_once_each_have_their_outcome(store):
    taken = {f"/{number}": await store.txn(put(f"/{number}")) for number in range(0, 500, 50)}
    results = await asyncio.gather(
        *(store.txn(put(f"/{number}", b"new", guard=0)) for number in range(500)), return_exceptions=True
    )
    for number, result in enumerate(results):
        assert isinstance(result, Conflict if f"/{number}" in taken else int), (number, result)
    assert len((await store.read("/")).records) == 500


async def test_two_thousand_records_of_large_transactions_are_whole(store):
    """More than goes in one request or one page; every record is there once."""
    await store.txn_many([Txn(puts=tuple(Put(f"/{t}/{i}", b"x" * 500) for i in range(MAX_OPS))) for t in range(25)])
    records = (await store.read("/")).records
    assert len(records) == len({record.key for record in records}) == 2_500


async def test_many_transactions_are_refused_before_any_happens(store):
    with pytest.raises(InvalidArgument):
        await store.txn_many([put("/a"), put("/b", b"x" * 1_000_001)])
    assert (await store.read("/")).records == ()


async def test_of_many_racers_one_wins_each_round(store):
    async def raise_by_one() -> bool:
        before = (await store.read("/counter")).records
        value, guard = (int(before[0].value), before[0].mod_revision) if before else (0, 0)
        try:
            await store.txn(put("/counter", str(value + 1).encode(), guard=guard))
        except Conflict:
            return False
        return True

    won = 0
    for _ in range(10):
        won += sum(await asyncio.gather(*(raise_by_one() for _ in range(8))))
    assert int((await store.read("/counter")).records[0].value) == won >= 10


# Reading


async def test_a_range_is_the_prefix_in_order(store):
    for key in ("/task/b", "/task/a", "/tas", "/task0", "/tasks/x", "/task/a/1"):
        await store.txn(put(key))
    assert [record.key for record in (await store.read("/task/")).records] == ["/task/a", "/task/a/1", "/task/b"]


async def test_a_read_goes_back_to_a_kept_revision(store):
    first = await store.txn(Txn(puts=(Put("/a", b"1"), Put("/b", b"1"))))
    await store.txn(Txn(puts=(Put("/a", b"2"), Put("/c", b"2")), deletes=("/b",)))
    await store.txn(put("/a", b"3"))
    then = await store.read("/", revision=first)
    assert then.revision == first
    assert [(each.key, each.value, each.mod_revision) for each in then.records] == [
        ("/a", b"1", first),
        ("/b", b"1", first),
    ]


async def test_a_read_of_what_is_to_come_is_refused(store):
    revision = await store.txn(put("/a"))
    with pytest.raises(InvalidArgument, match="to come"):
        await store.read("/", revision=revision + 1)


# Watching


async def test_a_watch_resumes_after_a_revision(store):
    first = await store.txn(put("/a", b"1"))
    second = await store.txn(Txn(puts=(Put("/a", b"2"), Put("/b", b"2"))))
    third = await store.txn(Txn(deletes=("/a",)))
    commits = await take(store.watch("/", after=first), 2)
    assert [commit.revision for commit in commits] == [second, third]
    assert {(change.key, change.value) for change in commits[0].changes} == {("/a", b"2"), ("/b", b"2")}
    assert [(change.key, change.value, change.mod_revision) for change in commits[1].changes] == [("/a", None, third)]


async def test_a_watch_waits_for_what_comes(store):
    revision = await store.txn(put("/a"))
    waiting = asyncio.ensure_future(take(store.watch("/", after=revision), 1))
    await asyncio.sleep(0)
    later = await store.txn(put("/b"))
    assert [commit.revision for commit in await waiting] == [later]


async def test_a_watch_shows_its_prefix_only(store, start):
    await store.txn(put("/node/1"))
    await store.txn(Txn(puts=(Put("/task/1", b""), Put("/node/2", b""))))
    (commit,) = await take(store.watch("/task/", after=start), 1)
    assert [change.key for change in commit.changes] == ["/task/1"]


@pytest.mark.parametrize("begin", ["from the start", "from the middle"])
async def test_a_watch_has_no_gap_under_concurrent_writers(store, start, begin):
    writers, writes = 8, 30
    read = asyncio.Event()

    async def write(writer: int) -> None:
        """Until the state was read and a while longer, so that the watch has something to tell."""
        number = 0
        while number < writes or not read.is_set():
            await store.txn(put(f"/{writer}/{number % 7}", str(number).encode()))
            number += 1
        for number in range(writes):
            await store.txn(put(f"/{writer}/{number % 7}", f"after {number}".encode()))

    writing = asyncio.gather(*(write(writer) for writer in range(writers)))
    if begin == "from the middle":
        await take(store.watch("/", after=start), 20)
    begun = await store.read("/")
    state = {record.key: record.value for record in begun.records}
    last = begun.revision
    read.set()
    await writing
    end = await store.read("/")
    async with asyncio.timeout(60):
        async for commit in store.watch("/", after=begun.revision):
            assert commit.revision > last
            last = commit.revision
            state |= {change.key: change.value for change in commit.changes}
            if commit.revision >= end.revision:
                break
    assert state == {record.key: record.value for record in end.records}


async def test_two_watches_see_the_same(store, start):
    watches = [store.watch("/", after=start) for _ in range(2)]
    await asyncio.gather(*(store.txn(put(f"/{i}")) for i in range(20)))
    one, other = [await take_changes(watch, 20) for watch in watches]
    assert one == other and len(one) == 20


# Compaction


async def test_a_watch_below_the_compacted_revision_is_told(store, start):
    for number in range(10):
        revision = await store.txn(put("/a", str(number).encode()))
    await store.compact(revision - 2)
    with pytest.raises(Compacted):
        await take(store.watch("/", after=start), 1)
    assert len(await take(store.watch("/", after=revision - 2), 2)) == 2


async def test_a_watch_just_below_the_compacted_revision_is_told(store):
    """A deletion at the compacted revision itself is forgotten with it."""
    before = await store.txn(put("/a"))
    gone = await store.txn(Txn(deletes=("/a",)))
    await store.compact(gone)
    with pytest.raises(Compacted):
        await take(store.watch("/", after=before), 1)


async def test_a_watch_that_has_seen_everything_does_not_notice_compaction(store, start):
    revision = await store.txn(put("/a", b"1"))
    watch = store.watch("/", after=start)
    await take(watch, 1)
    await store.compact(revision)
    last = await store.txn(put("/a", b"2"))
    assert [commit.revision for commit in await take(watch, 1)] == [last]


async def test_a_read_below_the_compacted_revision_is_told(store):
    first = await store.txn(put("/a", b"1"))
    last = await store.txn(put("/a", b"2"))
    await store.compact(last)
    with pytest.raises(Compacted):
        await store.read("/", revision=first)
    assert (await store.read("/", revision=last)).records[0].value == b"2"


async def test_compaction_keeps_records_and_revisions(store):
    revision = await store.txn(put("/a", b"1"))
    await store.compact(revision)
    await store.compact(revision)  # again is fine
    record = (await store.read("/")).records[0]
    assert (record.value, record.mod_revision) == (b"1", revision)
    await store.txn(put("/a", b"2", guard=revision))


async def test_compaction_of_what_is_to_come_is_refused(store, start):
    with pytest.raises(InvalidArgument, match="to come"):
        await store.compact(start + 1000)


# Scan


async def test_a_scan_is_one_revision_in_parts_whatever_is_written_meanwhile(store):
    for number in range(7):
        await store.txn(put(f"/a/{number}", b"old"))
    before = await store.read("/a/")
    scan = store.scan("/a/", limit=3)
    parts = [await anext(scan)]
    await store.txn(Txn((), (Put("/a/6", b"new"), Put("/a/7", b"new")), ("/a/3",)))
    parts += [part async for part in scan]
    assert [len(part.records) for part in parts] == [3, 3, 1]
    assert {part.revision for part in parts} == {before.revision}
    assert [record for part in parts for record in part.records] == list(before.records)


async def test_a_scan_of_nothing_tells_the_revision(store):
    revision = await store.txn(put("/b"))
    assert [(part.revision, part.records) async for part in store.scan("/a")] == [(revision, ())]


async def test_a_scan_may_be_left_half_way(store):
    for number in range(4):
        await store.txn(put(f"/a/{number}"))
    async with contextlib.aclosing(store.scan("/", limit=1)) as scan:
        await anext(scan)
    assert len((await store.read("/")).records) == 4


# Opened again


async def test_what_was_acknowledged_is_there_again(reopen):
    store = await reopen()
    first = await store.txn(put("/a", b"1"))
    last = await store.txn(put("/b", b"2"))
    store = await reopen()
    snapshot = await store.read("/")
    assert snapshot.revision == last
    assert [(record.key, record.value) for record in snapshot.records] == [("/a", b"1"), ("/b", b"2")]
    assert [commit.revision for commit in await take(store.watch("/", after=first), 1)] == [last]
    assert await store.txn(put("/a", b"3", guard=first)) > last


async def test_history_stays_compacted(reopen):
    store = await reopen()
    revisions = [await store.txn(put("/a", bytes([number]))) for number in range(5)]
    await store.compact(revisions[2])
    store = await reopen()
    with pytest.raises(Compacted):
        await take(store.watch("/", after=revisions[1]), 1)
    assert [each.revision for each in await take(store.watch("/", after=revisions[2]), 2)] == revisions[3:]


async def test_a_random_history_is_remembered_at_every_revision(reopen):
    """Each revision's state, read back later, is what a plain dict was then."""
    store = await reopen()
    states: dict[int, dict[str, bytes]] = {}
    state: dict[str, bytes] = {}
    for number in itertools.islice(itertools.count(), 60):
        key, gone = f"/{number * 7 % 5}", f"/{number * 3 % 5}"
        puts = (Put(key, str(number).encode()),)
        deletes = (gone,) if gone != key and number % 3 == 0 else ()
        revision = await store.txn(Txn((), puts, deletes))
        state = {each: value for each, value in state.items() if each not in deletes}
        state[key] = puts[0].value
        states[revision] = state
    store = await reopen()
    for revision, then in states.items():
        records = (await store.read("/", revision=revision)).records
        assert {record.key: record.value for record in records} == then
