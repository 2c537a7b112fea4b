import asyncio
import os
import sqlite3

import pytest

from manager.store.base import Put, Txn
from manager.store.sqlite.store import SqliteStore
from shoal.clock import ManualClock
from shoal.errors import Compacted, Exhausted, Unavailable, Unsupported


def put(key: str, value: bytes = b"x") -> Txn:
    return Txn(puts=(Put(key, value),))


def damaged_by(tmp_path, statement: str) -> None:
    connection = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    connection.execute(statement)
    connection.close()


async def opened(tmp_path, **options) -> SqliteStore:
    return await SqliteStore.open(tmp_path / "store.db", clock=ManualClock(), **options)


async def test_a_second_manager_is_refused(tmp_path):
    store = await opened(tmp_path)
    with pytest.raises(Unavailable, match="in use by another process"):
        await opened(tmp_path)
    await store.close()
    await (await opened(tmp_path)).close()


async def test_no_database_is_said(tmp_path):
    (tmp_path / "store.db").write_bytes(b"this is no database" * 1000)
    with pytest.raises(Unavailable, match="restore it from a backup"):
        await opened(tmp_path)


async def test_a_damaged_page_is_found_on_opening(tmp_path):
    store = await opened(tmp_path)
    for number in range(200):
        await store.txn(put(f"/{number}", b"x" * 500))
    await store.close()
    path = tmp_path / "store.db"
    content = bytearray(path.read_bytes())
    for page in range(3, len(content) // 4096):
        content[page * 4096 : page * 4096 + 100] = b"\xff" * 100
    path.write_bytes(content)
    with pytest.raises(Unavailable, match="is damaged"):
        await opened(tmp_path)


@pytest.mark.parametrize("size", [50, 5000, 40_000])
async def test_a_truncated_file_is_said(tmp_path, size):
    store = await opened(tmp_path)
    for number in range(200):
        await store.txn(put(f"/{number}", b"x" * 500))
    await store.close()
    os.truncate(tmp_path / "store.db", size)
    with pytest.raises(Unavailable, match=r"is damaged.*restore it from a backup"):
        await opened(tmp_path)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("DELETE FROM meta", "its revision is missing"),
        ("DROP TABLE kv", "it lacks kv"),
    ],
)
async def test_what_is_missing_from_a_file_is_said(tmp_path, damage, words):
    await (await opened(tmp_path)).close()
    damaged_by(tmp_path, damage)
    with pytest.raises(Unavailable, match=f"is damaged: {words}; restore it from a backup"):
        await opened(tmp_path)


async def test_a_log_that_cannot_be_read_is_said_to_who_needs_it(tmp_path):
    store = await opened(tmp_path)
    await store.txn(put("/a"))
    await store.close()
    damaged_by(tmp_path, "UPDATE log SET data = x'c1'")
    store = await opened(tmp_path)
    with pytest.raises(Unavailable, match="is damaged"):
        await anext(store.watch("/", after=0))
    assert [record.key for record in (await store.read("/")).records] == ["/a"]
    await store.close()


async def test_another_programs_database_is_left_alone(tmp_path):
    damaged_by(tmp_path, "CREATE TABLE theirs (x)")
    before = (tmp_path / "store.db").read_bytes()
    with pytest.raises(Unavailable, match="database of another program"):
        await opened(tmp_path)
    assert (tmp_path / "store.db").read_bytes() == before


async def test_an_empty_file_is_a_new_store(tmp_path):
    """What is left of a host that lost power while the store was made."""
    (tmp_path / "store.db").touch()
    store = await opened(tmp_path)
    assert await store.txn(put("/a")) == 1
    await store.close()


async def test_a_place_that_cannot_be_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match="cannot be opened"):
        await SqliteStore.open(tmp_path / "file" / "store.db", clock=ManualClock())
    (tmp_path / "store.db").mkdir()
    with pytest.raises(Unavailable, match="open"):
        await opened(tmp_path)


async def test_a_newer_schema_is_refused(tmp_path):
    await (await opened(tmp_path)).close()
    with sqlite3.connect(tmp_path / "store.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(Unsupported, match="has schema 99"):
        await opened(tmp_path)


async def test_a_failed_opening_leaves_no_lock(tmp_path):
    path = tmp_path / "store.db"
    path.write_bytes(b"nonsense" * 1000)
    with pytest.raises(Unavailable):
        await opened(tmp_path)
    path.unlink()
    await (await opened(tmp_path)).close()


async def test_the_log_stays_bounded_and_says_so(tmp_path):
    store = await opened(tmp_path, keep_revisions=50)
    for number in range(200):
        revision = await store.txn(put("/a", str(number).encode()))
    with pytest.raises(Compacted):
        await anext(store.watch("/", after=1))
    kept = store.watch("/", after=revision - 50)
    assert [(await anext(kept)).revision for _ in range(50)] == list(range(revision - 49, revision + 1))
    await store.close()
    with sqlite3.connect(tmp_path / "store.db") as connection:
        assert 50 <= connection.execute("SELECT count(*) FROM log").fetchone()[0] <= 55
    connection.close()


async def test_the_log_is_bounded_by_bytes_too(tmp_path):
    store = await opened(tmp_path, keep_bytes=100_000)
    for _ in range(50):
        await store.txn(put("/a", b"x" * 10_000))
    with pytest.raises(Compacted):
        await anext(store.watch("/", after=1))
    await store.close()


async def test_a_watcher_behind_the_ring_reads_the_log(tmp_path):
    store = await opened(tmp_path)
    await asyncio.gather(*(store.txn(put(f"/{number}")) for number in range(5000)))
    watch = store.watch("/", after=0)
    assert [(await anext(watch)).revision for _ in range(5000)] == list(range(1, 5001))
    await store.close()


async def test_a_full_disk_is_said_and_loses_nothing(tmp_path):
    """SQLite's own limit on pages stands in for the disk; tests/kernel has a real one."""
    store = await opened(tmp_path)
    await store.txn(put("/kept", b"1"))
    await store._ask(lambda writer: writer._connection.execute("PRAGMA max_page_count = 20").fetchall())
    with pytest.raises(Exhausted, match="disk is full"):
        for number in range(100):
            await store.txn(put(f"/{number}", b"x" * 4000))
    before = await store.read("/")
    with pytest.raises(Exhausted):
        await store.txn(put("/more", b"x" * 40_000))
    assert await store.read("/") == before
    await store._ask(lambda writer: writer._connection.execute("PRAGMA max_page_count = 100000").fetchall())
    revision = await store.txn(put("/more", b"x" * 40_000))
    assert revision == before.revision + 1
    watch = store.watch("/", after=0)
    assert [(await anext(watch)).revision for _ in range(revision)] == list(range(1, revision + 1))
    await store.close()


async def test_a_cancelled_write_leaves_the_store_well(tmp_path):
    store = await opened(tmp_path)
    writing = [asyncio.create_task(store.txn(put(f"/{number}"))) for number in range(50)]
    await asyncio.sleep(0)
    for each in writing[::2]:
        each.cancel()
    await asyncio.gather(*writing, return_exceptions=True)
    assert all(not each.cancelled() and each.result() for each in writing[1::2])
    await store.txn(put("/after"))
    await store.close()


async def test_a_dead_writer_is_heard_by_all(tmp_path):
    store = await opened(tmp_path)

    def bug(writer):
        raise ZeroDivisionError

    watch = asyncio.ensure_future(anext(store.watch("/", after=0)))
    waiting = [asyncio.ensure_future(store._ask(bug)), asyncio.ensure_future(store.txn(put("/a")))]
    async with asyncio.timeout(60):
        for each in (*waiting, watch):
            with pytest.raises(Unavailable, match="writer has ended: ZeroDivisionError"):
                await each
    with pytest.raises(Unavailable):
        await store.txn(put("/b"))
    await store.close()


async def test_a_closed_store_says_so(tmp_path):
    store = await opened(tmp_path)
    watch = asyncio.ensure_future(anext(store.watch("/", after=0)))
    await asyncio.sleep(0)
    await store.close()
    await store.close()
    with pytest.raises(Unavailable, match="closed"):
        await store.txn(put("/a"))
    with pytest.raises(Unavailable, match="closed"):
        await watch
    async with asyncio.timeout(60):
        with pytest.raises(Unavailable, match="closed"):
            await store.grant(1)


async def test_what_was_asked_before_closing_is_done(tmp_path):
    store = await opened(tmp_path)
    writing = [asyncio.ensure_future(store.txn(put(f"/{number}"))) for number in range(100)]
    await asyncio.sleep(0)
    await store.close()
    assert len(set(await asyncio.gather(*writing))) == 100


async def test_an_opened_lease_has_its_whole_time_again(tmp_path):
    clock = ManualClock()
    store = await SqliteStore.open(tmp_path / "store.db", clock=clock)
    lease = await store.grant(10)
    await store.txn(Txn(puts=(Put("/leader", b"x", lease),)))
    await clock.advance(9)
    await store.close()
    store = await SqliteStore.open(tmp_path / "store.db", clock=clock)
    await clock.advance(9)
    await store.keep_alive(lease)
    await clock.advance(11)
    async with asyncio.timeout(60):
        assert (await anext(store.watch("/", after=1))).changes[0].value is None
    await store.close()


async def test_a_lease_ends_exactly_with_its_time(tmp_path):
    clock = ManualClock()
    store = await SqliteStore.open(tmp_path / "store.db", clock=clock)
    revision = await store.txn(Txn(puts=(Put("/leader", b"x", await store.grant(10)),)))
    await clock.advance(9.999)
    assert len((await store.read("/")).records) == 1
    await clock.advance(0.002)
    async with asyncio.timeout(60):
        assert (await anext(store.watch("/", after=revision))).changes[0].value is None
    await store.close()
