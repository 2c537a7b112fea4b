"""From a store to a backup and into another store: nothing lost, nothing half."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from manager.store import backup
from manager.store.base import MAX_BYTES, MAX_OPS, Put, Txn
from manager.store.sqlite.store import SqliteStore
from shoal.backup import Decoder, Header, Item
from shoal.clock import ManualClock
from shoal.errors import Conflict, ShoalError, Unavailable

HEADER = Header("c1", 0, 1, "sqlite", "0.1.0")


@pytest.fixture
async def source(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    """With more records than one part or one transaction takes, and what leases keep."""
    store = await SqliteStore.open(tmp_path / "source.db", clock=ManualClock())
    lease = await store.grant(60)
    await store.txn(Txn(puts=(Put("/leader", b"m1", lease), Put("/manager/m1", b"a:1", lease))))
    for group in range(5):
        await store.txn(Txn(puts=tuple(Put(f"/task/{group}{n:02}", bytes([group, n])) for n in range(MAX_OPS))))
    await store.txn(Txn(puts=(Put("/config/big", b"b" * (MAX_BYTES // 2)), Put("/claim/x", b""))))
    yield store
    await store.close()


@pytest.fixture
async def target(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(tmp_path / "target.db", clock=ManualClock())
    yield store
    await store.close()


async def taken(store: SqliteStore) -> bytes:
    return b"".join([chunk async for chunk in backup.packed(store, HEADER)])


def items(data: bytes) -> Iterator[Item]:
    for batch in Decoder(io.BytesIO(data), "backup").batches():
        yield from batch


async def records(store: SqliteStore) -> dict[str, bytes]:
    return {record.key: record.value for record in (await store.read("/")).records}


async def test_all_that_lasts_comes_over(source: SqliteStore, target: SqliteStore) -> None:
    data = await taken(source)
    await backup.begin(target, what="a test")
    await backup.fill(target, items(data))
    await backup.compare(target, items(data))
    await backup.fill(target, [Item("/claim/x", b"new")])
    await backup.finish(target)
    await backup.take_over(target)
    expected = await records(source)
    del expected["/leader"], expected["/manager/m1"]
    assert await records(target) == expected | {"/claim/x": b"new"}


async def test_a_backup_is_of_one_revision(source: SqliteStore) -> None:
    before = (await source.read("/")).revision
    stream = backup.packed(source, HEADER)
    chunks = [await anext(stream)]
    await source.txn(Txn(puts=(Put("/task/499", b"later"), Put("/zzz", b"later"))))
    chunks += [chunk async for chunk in stream]
    data = b"".join(chunks)
    assert Decoder(io.BytesIO(data), "backup").header.revision == before
    found = {item.key: item.value for item in items(data)}
    assert found["/task/499"] == bytes([4, 99])
    assert "/zzz" not in found


async def test_a_store_in_use_is_not_filled(source: SqliteStore) -> None:
    before = await records(source)
    with pytest.raises(Conflict, match="is not empty"):
        await backup.begin(source, what="a test")
    assert await records(source) == before


async def test_what_broke_off_is_told_and_begun_anew(source: SqliteStore, target: SqliteStore) -> None:
    data = await taken(source)
    await backup.begin(target, what="a restore")
    await backup.fill(target, [Item("/task/of another try", b"")])
    with pytest.raises(ShoalError, match="not whole: a restore into it broke off"):
        await backup.take_over(target)
    await backup.begin(target, what="a restore")
    await backup.fill(target, items(data))
    await backup.compare(target, items(data))
    await backup.finish(target)
    # Whole, but nobody took it over: still another try may begin anew.
    await backup.begin(target, what="a restore")
    await backup.fill(target, items(data))
    await backup.finish(target)
    await backup.take_over(target)
    with pytest.raises(Conflict, match="is not empty"):
        await backup.begin(target, what="a restore")


@pytest.mark.parametrize(
    "spoilt", [Txn(deletes=("/task/499",)), Txn(puts=(Put("/task/200", b"?"),)), Txn(puts=(Put("/zzz", b""),))]
)
async def test_the_comparison_finds_what_differs(source: SqliteStore, target: SqliteStore, spoilt: Txn) -> None:
    data = await taken(source)
    await backup.begin(target, what="a test")
    await backup.fill(target, items(data))
    await target.txn(spoilt)
    with pytest.raises(Unavailable):
        await backup.compare(target, items(data))
