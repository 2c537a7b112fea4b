import asyncio
from contextlib import asynccontextmanager

import msgspec
import pytest

from manager.control.action import LeadershipLost, change, commit, create
from manager.control.controller import Decision
from manager.control.loop import Loop, Timers
from manager.store.base import Guard, Put, Txn
from manager.store.mirror import Mirror
from manager.store.sqlite.store import SqliteStore
from shoal.clock import ManualClock, settle
from shoal.errors import Unavailable
from shoal.model.base import Meta
from shoal.model.node import Node
from shoal.model.task import Task

SECOND = 1_000_000_000


class Counting:
    """Raises every task's slot to 3, one at a time."""

    name = "counting"
    kinds = frozenset({"task"})

    def __init__(self):
        self.decided = []

    def keys_for(self, event, view):
        return (event.id,)

    def reconcile(self, view, key, now_ns, mint):
        task = view.tasks.get(key)
        self.decided.append((key, task and task.slot))
        if task is None or task.slot >= 3:
            return Decision()
        return Decision((change(msgspec.structs.replace(task, slot=task.slot + 1), "count"),))


@pytest.fixture
async def parts(tmp_path):
    clock = ManualClock()
    store = await SqliteStore.open(tmp_path / "store.db", clock=clock)
    mirror = Mirror()
    following = asyncio.create_task(mirror.run(store))
    await mirror.reached(0)
    yield store, mirror, clock
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    await store.close()


@asynccontextmanager
async def running(parts, *controllers, fence=()):
    store, mirror, clock = parts
    loop = asyncio.create_task(Loop(store, mirror, controllers, clock=clock, fence=fence).run())
    try:
        yield loop
    finally:
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)


async def until(mirror, true):
    """After whichever event it becomes so."""
    async with asyncio.timeout(60):
        with mirror.changes.subscribe() as events:
            while not true():
                await anext(events)


def slot(mirror, id):
    task = mirror.tasks.get(id)
    return task.slot if task else None


async def test_a_change_is_decided_on_to_its_end(parts):
    store, mirror, _ = parts
    controller = Counting()
    async with running(parts, controller):
        await commit(store, [create(Task(Meta("a")), "new")])
        await until(mirror, lambda: slot(mirror, "a") == 3)
    assert [seen for _, seen in controller.decided if seen is not None][:3] == [0, 1, 2]


async def test_what_was_there_before_is_looked_at_first(parts):
    store, mirror, _ = parts
    await commit(store, [create(Task(Meta("a")), "new")])
    async with running(parts, Counting()):
        await until(mirror, lambda: slot(mirror, "a") == 3)


async def test_every_decision_sees_the_one_before_it(parts):
    """Read your writes: no slot is ever decided on twice."""
    store, mirror, _ = parts
    controller = Counting()
    async with running(parts, controller):
        await commit(store, [create(Task(Meta(str(number))), "new") for number in range(250)])
        await until(mirror, lambda: all(slot(mirror, str(number)) == 3 for number in range(250)))
    acted = [each for each in controller.decided if each[1] is not None and each[1] < 3]
    assert len(acted) == len(set(acted))


async def test_a_conflict_is_decided_anew(parts):
    store, mirror, clock = parts

    class Raced(Counting):
        """Somebody else writes right after the decision was made."""

        def reconcile(self, view, key, now_ns, mint):
            decision = super().reconcile(view, key, now_ns, mint)
            if len(self.decided) == 1:
                stale = tuple(msgspec.structs.replace(action, guard=action.guard + 99) for action in decision.actions)
                return Decision(stale)
            return decision

    controller = Raced()
    async with running(parts, controller):
        await commit(store, [create(Task(Meta("a")), "new")])
        while len(controller.decided) < 1:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.02)
        assert slot(mirror, "a") == 0
        async with asyncio.timeout(60):
            while slot(mirror, "a") != 3:
                await asyncio.sleep(0.001)
                await clock.advance(0.1)


async def test_a_failing_key_stops_neither_the_others_nor_itself_for_ever(parts, caplog):
    store, mirror, clock = parts

    class Failing(Counting):
        broken = True

        def reconcile(self, view, key, now_ns, mint):
            if key == "bad" and self.broken:
                raise ZeroDivisionError
            return super().reconcile(view, key, now_ns, mint)

    controller = Failing()
    async with running(parts, controller):
        await commit(store, [create(Task(Meta("bad")), "new"), create(Task(Meta("good")), "new")])
        await until(mirror, lambda: slot(mirror, "good") == 3)
        assert slot(mirror, "bad") == 0
        assert "counting failed on bad" in caplog.text
        controller.broken = False
        await clock.advance(6)
        await until(mirror, lambda: slot(mirror, "bad") == 3)


async def test_a_key_is_looked_at_again_when_it_asked_to(parts):
    store, _, clock = parts
    times = []

    class Waiting(Counting):
        def reconcile(self, view, key, now_ns, mint):
            times.append(now_ns)
            return Decision((), now_ns + 10 * SECOND if len(times) < 3 else None)

    async with running(parts, Waiting()):
        await commit(store, [create(Task(Meta("a")), "new")])
        while not times:
            await asyncio.sleep(0.001)
        await clock.advance(35)
    assert [time - times[0] for time in times] == [0, 10 * SECOND, 20 * SECOND]


async def test_controllers_run_in_their_order(parts):
    """The second one sees what the first one wrote, in the same round."""
    store, mirror, _ = parts
    seen = []

    class After(Counting):
        def reconcile(self, view, key, now_ns, mint):
            seen.append(view.tasks[key].slot)
            return Decision()

    async with running(parts, Counting(), After()):
        await commit(store, [create(Task(Meta("a")), "new")])
        await until(mirror, lambda: slot(mirror, "a") == 3)
        while not seen:
            await asyncio.sleep(0.001)
    assert set(seen) == {3}


async def test_only_its_kinds_reach_a_controller(parts):
    store, mirror, _ = parts
    controller = Counting()
    async with running(parts, controller):
        await commit(store, [create(Node(Meta("n")), "new"), create(Task(Meta("a")), "new")])
        await until(mirror, lambda: slot(mirror, "a") == 3)
    assert {key for key, _ in controller.decided} == {"a"}


async def test_a_loop_that_lost_its_lead_ends(parts):
    store, _, _ = parts
    revision = await store.txn(Txn(puts=(Put("/leader", b"me"),)))
    async with running(parts, Counting(), fence=(Guard("/leader", revision),)) as loop:
        await store.txn(Txn(puts=(Put("/leader", b"you"),)))
        await commit(store, [create(Task(Meta("a")), "new")])
        async with asyncio.timeout(60):
            with pytest.raises(LeadershipLost):
                await loop


async def test_a_store_that_fails_is_tried_again(parts):
    store, mirror, clock = parts

    class Flaky:
        failures = 3

        async def txn_many(self, txns):
            if self.failures:
                self.failures -= 1
                raise Unavailable("the store is away")
            return await store.txn_many(txns)

    async with running((Flaky(), mirror, clock), Counting()):
        await commit(store, [create(Task(Meta("a")), "new")])
        async with asyncio.timeout(60):
            while slot(mirror, "a") != 3:
                await asyncio.sleep(0.001)
                await clock.advance(1)


async def test_others_have_their_turn_while_there_is_much_to_decide(parts):
    """Also when nothing of it is to be written, and so nothing is waited for."""
    store, mirror, _ = parts
    turns = 0
    seen = []

    class Slow(ManualClock):
        """Each look at it finds it 8 ms later: two or three decisions are as much as may go without a break."""

        def monotonic(self):
            self._elapsed += 0.008
            return super().monotonic()

    class Looking(Counting):
        def reconcile(self, view, key, now_ns, mint):
            seen.append(turns)
            return Decision()

    async def others():
        nonlocal turns
        while len(seen) < 30:
            turns += 1
            await asyncio.sleep(0)

    await commit(store, [create(Task(Meta(str(number))), "new") for number in range(30)])
    async with running((store, mirror, Slow()), Looking()), asyncio.timeout(60):
        await others()
    assert max(seen.count(turn) for turn in seen) <= 3


async def test_what_was_decided_together_is_finished_before_it_is_written(parts):
    store, mirror, clock = parts
    together = []

    def finish(view, actions, now_ns):
        together.append(len(actions))
        return [msgspec.structs.replace(each, value=msgspec.structs.replace(each.value, slot=3)) for each in actions]

    await commit(store, [create(Task(Meta(id)), "new") for id in "abc"])
    loop = asyncio.create_task(Loop(store, mirror, [Counting()], clock=clock, finish=finish).run())
    await until(mirror, lambda: all(slot(mirror, id) == 3 for id in "abc"))
    loop.cancel()
    await asyncio.gather(loop, return_exceptions=True)
    assert together == [3]


async def test_decisions_are_written_as_they_are_when_finishing_them_fails(parts, caplog):
    store, mirror, clock = parts

    def finish(view, actions, now_ns):
        raise ZeroDivisionError

    await commit(store, [create(Task(Meta("a")), "new")])
    loop = asyncio.create_task(Loop(store, mirror, [Counting()], clock=clock, finish=finish).run())
    await until(mirror, lambda: slot(mirror, "a") == 3)
    loop.cancel()
    await asyncio.gather(loop, return_exceptions=True)
    assert "written unfinished" in caplog.text


async def test_a_leader_with_much_to_look_at_lets_others_have_their_turn(parts):
    store, mirror, _ = parts
    turns = []

    class Asked(Counting):
        def keys_for(self, event, view):
            turns.append(turn)
            return ()

    done = await commit(store, [create(Task(Meta(str(number))), "new") for number in range(3500)])
    await mirror.reached(done.revision)
    turn = 0
    async with running(parts, Asked()), asyncio.timeout(60):
        while len(turns) < 3500:
            turn += 1
            await asyncio.sleep(0)
    assert max(turns.count(each) for each in set(turns)) <= 1000


def test_a_key_has_one_time():
    timers = Timers()
    timers.set(0, "a", 10)
    timers.set(0, "a", 30)
    timers.set(0, "b", 20)
    timers.at_most(0, "b", 25)
    timers.at_most(0, "c", 15)
    assert timers.next_ns() == 15
    assert list(timers.due(20)) == [(0, "c"), (0, "b")]
    timers.set(0, "a", None)
    assert timers.next_ns() is None
    assert list(timers.due(100)) == []


async def test_a_clock_that_is_set_back_makes_no_timer_later(parts):
    store, mirror, clock = parts

    class Waiting(Counting):
        def reconcile(self, view, key, now_ns, mint):
            self.decided.append((key, now_ns))
            return Decision((), now_ns + 5 * SECOND if len(self.decided) == 1 else None)

    controller = Waiting()
    async with running(parts, controller):
        await commit(store, [create(Task(Meta("a")), "new")])
        await mirror.reached(1)
        await settle()
        (first,) = controller.decided
        clock.shift(-3600)
        await clock.advance(5)
        assert controller.decided == [first, ("a", first[1] - 3595 * SECOND)]
