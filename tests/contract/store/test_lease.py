"""What any store promises about leases. etcd's run in real time, so they are short here."""

import pytest

from manager.store.base import MAX_OPS, Put, Txn
from shoal.errors import NotFound
from tests.contract.store.steps import put, take

pytestmark = pytest.mark.parametrize("implementation", ["sqlite", "etcd"])


async def test_a_lease_that_ends_takes_its_keys(store, passing):
    lease = await store.grant(passing.lease_s)
    await store.txn(put("/leader", b"me", lease=lease))
    kept = await store.txn(put("/other"))
    await passing.almost()
    assert len((await store.read("/")).records) == 2
    await passing.over()
    (commit,) = await take(store.watch("/", after=kept), 1)
    assert [(change.key, change.value) for change in commit.changes] == [("/leader", None)]


async def test_a_lease_lives_while_it_is_kept_alive(store, passing):
    lease = await store.grant(passing.lease_s)
    await store.txn(put("/leader", lease=lease))
    for _ in range(4):
        await passing.almost()
        await store.keep_alive(lease)
    assert len((await store.read("/leader")).records) == 1


async def test_a_lease_that_has_ended_cannot_be_revived(store, passing):
    lease = await store.grant(passing.lease_s)
    await store.txn(put("/leader", lease=lease))
    watch = store.watch("/leader", after=(await store.read("/")).revision)
    await passing.almost()
    await passing.over()
    await take(watch, 1)
    with pytest.raises(NotFound):
        await store.keep_alive(lease)


async def test_a_revoked_lease_takes_its_keys_at_once(store):
    lease = await store.grant(60)
    await store.txn(Txn(puts=tuple(Put(f"/{i}", b"", lease) for i in range(MAX_OPS))))
    await store.txn(Txn(puts=tuple(Put(f"/x{i}", b"", lease) for i in range(MAX_OPS))))
    await store.revoke(lease)
    assert (await store.read("/")).records == ()
    await store.revoke(lease)  # again is fine
    with pytest.raises(NotFound):
        await store.txn(put("/leader", lease=lease))


async def test_a_key_written_without_its_lease_outlives_it(store):
    lease = await store.grant(60)
    await store.txn(put("/a", lease=lease))
    await store.txn(put("/a", b"kept"))
    await store.revoke(lease)
    assert (await store.read("/a")).records[0].value == b"kept"


async def test_a_key_that_moves_to_another_lease_goes_with_that(store):
    one, other = await store.grant(60), await store.grant(60)
    await store.txn(put("/a", lease=one))
    await store.txn(put("/a", lease=other))
    await store.revoke(one)
    assert len((await store.read("/a")).records) == 1
    await store.revoke(other)
    assert (await store.read("/a")).records == ()


async def test_each_lease_ends_at_its_own_time(store, passing):
    for times in (3, 1, 2):
        await store.txn(put(f"/{times}", lease=await store.grant(times * passing.lease_s)))
    watch = store.watch("/", after=(await store.read("/")).revision)
    for times in (1, 2, 3):
        await passing.almost()
        await passing.over()
        assert [change.key for change in (await take(watch, 1))[0].changes] == [f"/{times}"]


async def test_leases_are_apart(store):
    one, other = await store.grant(60), await store.grant(60)
    assert one != other
    await store.txn(put("/a", lease=one))
    await store.txn(put("/b", lease=other))
    await store.revoke(one)
    assert [record.key for record in (await store.read("/")).records] == ["/b"]
