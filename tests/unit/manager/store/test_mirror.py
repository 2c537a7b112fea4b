import asyncio
import threading

import pytest

from manager.control.action import change, commit, create, delete, touched
from manager.store.base import Put, Txn
from manager.store.mirror import Mirror
from manager.store.sqlite.store import SqliteStore
from shoal.clock import ManualClock
from shoal.errors import Unavailable
from shoal.model.base import Meta
from shoal.model.node import Node
from shoal.model.task import Task


@pytest.fixture
async def store(tmp_path):
    store = await SqliteStore.open(tmp_path / "store.db", clock=ManualClock(), keep_revisions=10)
    yield store
    await store.close()


@pytest.fixture
async def mirror(store):
    mirror = Mirror()
    following = asyncio.create_task(mirror.run(store))
    yield mirror
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


async def test_shows_what_was_there_and_what_comes(store, mirror):
    await commit(store, [create(Node(Meta("n1")), "new")])
    await mirror.reached(0)
    assert set(mirror.nodes) == {"n1"}
    done = await commit(store, [create(Task(Meta("t1")), "new"), delete(mirror.nodes["n1"], "gone")])
    await mirror.reached(done.revision)
    assert set(mirror.tasks) == {"t1"} and mirror.nodes == {}
    assert mirror.tasks["t1"].meta.version == done.revision


async def test_says_what_changed(store, mirror):
    await mirror.reached(0)
    with mirror.changes.subscribe() as events:
        first = await commit(store, [create(Task(Meta("t1")), "new")])
        await mirror.reached(first.revision)
        task = mirror.tasks["t1"]
        await commit(store, [change(touched(task, 0, slot=2), "change")])
        made, changed = await anext(events), await anext(events)
    assert (made.kind, made.id, made.old, made.new) == ("task", "t1", None, task)
    assert changed.old is task and changed.new.slot == 2


async def test_other_parts_keys_only_move_the_revision(store, mirror):
    await mirror.reached(0)
    with mirror.changes.subscribe() as events:
        revision = await store.txn(Txn(puts=(Put("/leader", b"me"), Put("/name/service/web", b"x"))))
        await mirror.reached(revision)
        assert events.drain() == []


async def test_what_is_prepared_in_a_thread_sees_a_view_that_stands_still_and_readers_do_not_wait(store):
    await commit(store, [create(Node(Meta("n1")), "new")])
    seen, go_on = [], threading.Event()

    def prepare(view):
        seen.append(set(view.nodes))
        go_on.wait()
        seen.append(set(view.nodes))

    mirror = Mirror()
    following = asyncio.create_task(mirror.run(store, prepare=prepare))
    await mirror.reached(0)
    later = await commit(store, [create(Node(Meta("n2")), "new")])
    waiting = asyncio.create_task(mirror.reached(later.revision))
    while not seen:
        await asyncio.sleep(0)
    assert set(mirror.nodes) == {"n1"} and not waiting.done()
    go_on.set()
    await waiting
    assert (seen, set(mirror.nodes)) == ([{"n1"}, {"n1"}], {"n1", "n2"})
    following.cancel()


async def test_reads_again_when_history_is_gone(store):
    """A mirror that stood still while more happened than the store keeps; its listeners see the difference."""
    await commit(store, [create(Task(Meta(id)), "new") for id in ("kept", "changed", "gone")])

    class Paused:
        """A store whose watch waits until it is let go on."""

        go_on = asyncio.Event()

        def __getattr__(self, name):
            return getattr(store, name)

        async def watch(self, prefix, *, after):
            await self.go_on.wait()
            async for each in store.watch(prefix, after=after):
                yield each

    mirror, paused = Mirror(), Paused()
    following = asyncio.create_task(mirror.run(paused))
    await mirror.reached(1)
    with mirror.changes.subscribe() as events:
        tasks = dict(mirror.tasks)
        await commit(store, [change(touched(tasks["changed"], 0, slot=5), "x"), delete(tasks["gone"], "x")])
        for number in range(30):
            last = await commit(store, [create(Task(Meta(f"new{number}")), "new")])
        paused.go_on.set()
        async with asyncio.timeout(60):
            await mirror.reached(last.revision)
        seen = {event.id: (event.old is not None, event.new is not None) for event in events.drain()}
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    assert seen["changed"] == (True, True) and seen["gone"] == (True, False) and "kept" not in seen
    assert {id for id in seen if id.startswith("new")} == {f"new{number}" for number in range(30)}
    assert mirror.tasks["changed"].slot == 5 and "gone" not in mirror.tasks
    assert mirror.tasks["kept"] is tasks["kept"]


async def test_ends_loudly_when_the_store_does(tmp_path):
    store = await SqliteStore.open(tmp_path / "store.db", clock=ManualClock())
    mirror = Mirror()
    following = asyncio.create_task(mirror.run(store))
    await mirror.reached(0)
    await asyncio.sleep(0)
    await store.close()
    async with asyncio.timeout(60):
        with pytest.raises(Unavailable):
            await following


async def test_many_wait_for_many_revisions(store, mirror):
    waits = [asyncio.create_task(mirror.reached(revision)) for revision in (3, 1, 2)]
    for number in range(3):
        await commit(store, [create(Task(Meta(str(number))), "new")])
    async with asyncio.timeout(60):
        await asyncio.gather(*waits)
