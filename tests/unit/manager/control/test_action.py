import msgspec
import pytest

from manager.control.action import LeadershipLost, change, commit, create, delete, resting_on
from manager.store.base import Guard, Put, Txn
from manager.store.records import decode, key_for
from manager.store.sqlite.store import SqliteStore
from shoal.clock import ManualClock
from shoal.model.base import Meta
from shoal.model.service import Service, ServiceSpec
from shoal.model.task import Task, TaskState


@pytest.fixture
async def store(tmp_path):
    store = await SqliteStore.open(tmp_path / "store.db", clock=ManualClock())
    yield store
    await store.close()


def task(id: str, **fields) -> Task:
    return Task(Meta(id), **fields)


async def stored(store) -> dict[str, Task]:
    return {record.key: decode(record) for record in (await store.read("/task/")).records}


async def test_writes_what_it_is_given(store):
    done = await commit(store, [create(task("a"), "new"), create(task("b"), "new")])
    assert done.conflicts == ()
    tasks = await stored(store)
    assert set(tasks) == {"/task/a", "/task/b"}
    assert tasks["/task/a"].meta.version == done.revision
    done = await commit(store, [delete(tasks["/task/a"], "old")])
    assert set(await stored(store)) == {"/task/b"}


async def test_a_conflict_leaves_the_others_alone(store):
    await commit(store, [create(task(id), "new") for id in "abc"])
    seen = await stored(store)
    await commit(store, [change(msgspec.structs.replace(seen["/task/b"], slot=9), "somebody else")])
    done = await commit(store, [change(msgspec.structs.replace(each, slot=1), "mine") for each in seen.values()])
    assert [action.key for action in done.conflicts] == ["/task/b"]
    assert [each.slot for each in (await stored(store)).values()] == [1, 9, 1]


async def test_what_rests_on_a_conflict_is_left_out_too(store):
    await commit(store, [create(task("old"), "new")])
    old = (await stored(store))["/task/old"]
    await commit(store, [change(msgspec.structs.replace(old, slot=9), "somebody else")])
    actions = [
        change(msgspec.structs.replace(old, desired=TaskState.SHUTDOWN), "replaced"),
        create(task("next"), "replaces it", rests_on=resting_on(old)),
        create(task("unrelated"), "new"),
    ]
    done = await commit(store, actions)
    assert list(done.conflicts) == actions[:2]
    assert set(await stored(store)) == {"/task/old", "/task/unrelated"}


async def test_many_actions_are_split_but_pairs_stay_together(store):
    """Each pair's second action rests on the revision that its first one ends."""
    await commit(store, [create(task(f"old{number:03}"), "new") for number in range(300)])
    seen = await stored(store)
    actions = []
    for number, old in enumerate(seen.values()):
        actions.append(change(msgspec.structs.replace(old, desired=TaskState.SHUTDOWN), "replaced"))
        actions.append(create(task(f"new{number:03}"), "replaces it", rests_on=resting_on(old)))
    done = await commit(store, actions)
    assert done.conflicts == ()
    assert len(await stored(store)) == 600


async def test_large_records_are_split_by_size(store):
    labels = {"text": "x" * 300_000}
    services = [Service(Meta(str(number)), ServiceSpec(labels=labels)) for number in range(10)]
    done = await commit(store, [create(service, "new") for service in services])
    assert done.conflicts == ()
    assert len((await store.read("/service/")).records) == 10


async def test_behind_a_fence_that_fell_nothing_is_written(store):
    revision = await store.txn(Txn(puts=(Put("/leader", b"me"),)))
    fence = (Guard("/leader", revision),)
    await commit(store, [create(task("a"), "new")], fence)
    await store.txn(Txn(puts=(Put("/leader", b"you"),)))
    with pytest.raises(LeadershipLost):
        await commit(store, [create(task("b"), "new")], fence)
    assert set(await stored(store)) == {"/task/a"}


async def test_nothing_to_do_is_no_transaction(store):
    assert (await commit(store, [])).revision == 0


def test_an_action_knows_its_key():
    assert create(task("a"), "why").key == key_for(task("a")) == "/task/a"
