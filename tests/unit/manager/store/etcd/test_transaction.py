from hypothesis import given
from hypothesis import strategies as st

from manager.store.base import Guard, Put, Txn
from manager.store.etcd.keyspace import Keyspace
from manager.store.etcd.transaction import BATCH_BYTES, MAX_OPS, Batch, request_of, waves


def putting(*keys: str, guarded: tuple[str, ...] = (), value: bytes = b"") -> Txn:
    return Txn(tuple(Guard(key, 0) for key in guarded), tuple(Put(key, value) for key in keys))


def wide(number: int, width: int) -> Txn:
    return putting(*(f"/{number}/{place}" for place in range(width)))


def taken(txns) -> int:
    batch = Batch()
    return sum(batch.takes(txn) for txn in txns)


def test_a_batch_is_as_wide_as_etcd_allows():
    """Measured: 28 transactions of 100 operations pass, 29 fail; 64 of 64, 65 fail; one of 127, and none of 128."""
    assert taken(wide(number, 64) for number in range(100)) == 15  # the bound of operations in all comes first
    assert taken(wide(number, 1) for number in range(200)) == MAX_OPS - 1
    assert taken([wide(0, 127), wide(1, 1)]) == 1
    assert taken([wide(0, 126), wide(1, 1)]) == 2


def test_one_that_is_too_wide_to_be_nested_goes_alone():
    guards = tuple(f"/{place}" for place in range(MAX_OPS))
    assert taken([putting("/a", guarded=guards), putting("/b")]) == 1


def test_a_batch_is_bounded_in_bytes():
    assert taken(putting(f"/{number}", value=b"x" * (BATCH_BYTES // 4)) for number in range(10)) == 3


def test_no_transaction_of_a_batch_touches_what_another_one_changes():
    assert taken([putting("/a"), putting("/a")]) == 1
    assert taken([putting("/a", guarded=("/b",)), putting("/b")]) == 1
    assert taken([putting("/b"), putting("/a", guarded=("/b",))]) == 1
    assert taken([putting("/a", guarded=("/fence",)), putting("/b", guarded=("/fence",))]) == 2


def test_what_shares_a_request_is_nested():
    keyspace = Keyspace("/ours/")
    assert request_of([putting("/a")], keyspace).success[0].put.key == b"/ours/a"
    request = request_of([putting("/a"), putting("/b", guarded=("/b",))], keyspace)
    assert [op.WhichOneof("request") for op in request.success] == ["txn", "txn"]
    assert request.success[1].txn.compare[0].key == b"/ours/b"


def test_guard_zero_is_said_although_it_is_the_default():
    (compare,) = request_of([putting("/a", guarded=("/a",))], Keyspace("")).compare
    assert compare.HasField("mod_revision") and compare.target == compare.TARGET_MOD


KEYS = st.sampled_from("abcde")


@given(st.lists(st.builds(lambda put, guards: putting(put, guarded=tuple(guards)), KEYS, st.sets(KEYS, max_size=2))))
def test_waves_keep_the_order_of_all_that_touch_each_other(txns):
    wave_of = {place: number for number, wave in enumerate(waves(txns)) for place in wave}
    assert sorted(wave_of) == list(range(len(txns)))
    for later in range(len(txns)):
        for earlier in range(later):
            a, b = txns[earlier], txns[later]
            changed = {a.puts[0].key}, {b.puts[0].key}
            guarded = {guard.key for guard in a.guards}, {guard.key for guard in b.guards}
            if changed[0] & (changed[1] | guarded[1]) or changed[1] & guarded[0]:
                assert wave_of[earlier] < wave_of[later]
