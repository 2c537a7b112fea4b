import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from manager.orchestrator import services
from manager.orchestrator.place import tend
from manager.orchestrator.places import Places, settled, stale
from manager.orchestrator.update import step
from manager.store.view import View
from shoal.model.base import Meta
from shoal.model.service import Service, ServiceSpec, UpdateOrder, UpdatePolicy
from shoal.model.task import Task, TaskState, TaskStatus

SECOND = 1_000_000_000
NOW_NS = 1_000 * SECOND


def test_the_tasks_of_a_place_are_in_the_order_in_which_they_were_made():
    view = View()
    places = view.follower(Places)
    for id, created_at_ns in (("late", 3), ("early", 1), ("middle", 2)):
        view.put(Task(Meta(id, created_at_ns=created_at_ns), "web", slot=1))
    view.put(Task(Meta("other", created_at_ns=1), "web", slot=2))
    assert [task.meta.id for task in places.of("web")[1].tasks] == ["early", "middle", "late"]
    view.put(Task(Meta("late", created_at_ns=3), "web", slot=1, desired=TaskState.REMOVE))
    view.remove("task", "early")
    assert [task.meta.id for task in places.of("web")[1].tasks] == ["middle"]
    view.remove("task", "middle")
    view.remove("task", "other")
    assert places.of("web") == {}


def test_a_settled_place_is_looked_at_again_when_a_task_of_it_changes_or_another_version_is_wanted():
    service = Service(Meta("web"), ServiceSpec("web", replicas=2), task_version=1)
    view = View([service, *(Task(Meta(f"t{slot}"), "web", 1, slot) for slot in (1, 2))])
    places = view.follower(Places)
    assert all(places.settle(service, slot, NOW_NS) for slot in places.restless("web"))
    assert places.restless("web") == []
    view.put(Task(Meta("t2"), "web", 1, 2, status=TaskStatus(TaskState.RUNNING)))
    assert [slot.number for slot in places.restless("web")] == [2]
    view.put(msgspec.structs.replace(service, spec=msgspec.structs.replace(service.spec, replicas=3)))
    assert [slot.number for slot in places.restless("web")] == [2]
    view.put(msgspec.structs.replace(service, task_version=2))
    assert sorted(slot.number for slot in places.restless("web")) == [1, 2]


def test_an_event_of_one_task_leads_to_a_look_at_one_place(new_world):
    """However many the service has."""
    world = new_world(nodes=3)
    world.service(replicas=500)
    world.converge()
    world.settle()
    places = world.view.follower(Places)
    assert places.restless("web") == []
    world.report(world.running()[0], TaskState.FAILED)
    assert len(places.restless("web")) == 1
    services.reconcile(world.view, "web", world.now_ns, lambda: "fresh")
    assert len(places.restless("web")) == 1


tasks = st.builds(
    Task,
    task_version=st.integers(1, 2),
    slot=st.just(1),
    desired=st.sampled_from([TaskState.READY, TaskState.RUNNING, TaskState.SHUTDOWN]),
    status=st.builds(
        TaskStatus,
        state=st.sampled_from([TaskState.NEW, TaskState.ASSIGNED, TaskState.RUNNING, TaskState.FAILED]),
        at_ns=st.sampled_from([NOW_NS - 60 * SECOND, NOW_NS]),
    ),
)


@settings(max_examples=500, deadline=None)
@given(
    tasks=st.lists(tasks, min_size=1, max_size=4),
    policy=st.builds(UpdatePolicy, st.just(0), st.sampled_from([0, SECOND]), st.sampled_from(UpdateOrder)),
)
def test_a_place_that_is_settled_needs_nothing_now_and_later(tasks, policy):
    service = Service(Meta("web"), ServiceSpec("web", replicas=1, update=policy), task_version=2)
    view = View([service])
    for number, task in enumerate(tasks):
        view.put(msgspec.structs.replace(task, service_id="web", meta=Meta(f"t{number}", created_at_ns=1 + number)))
    (slot,) = view.follower(Places).of("web").values()
    if settled(service, slot, NOW_NS):
        for now_ns in (NOW_NS, NOW_NS + 100 * SECOND):
            found = tend(view, service, slot, now_ns, lambda: "fresh")
            assert (found.actions, found.requeue_at_ns) == ((), None)
            stepped = step(view, service, [slot], (), now_ns, lambda: "fresh")
            assert (stepped.actions, stepped.requeue_at_ns) == ((), None)


@settings(max_examples=500, deadline=None)
@given(
    tasks=st.lists(tasks, min_size=1, max_size=4),
    policy=st.builds(UpdatePolicy, st.sampled_from([0, 1]), st.sampled_from([0, SECOND]), st.sampled_from(UpdateOrder)),
)
def test_a_stale_place_needs_nothing_but_its_turn(tasks, policy):
    service = Service(Meta("web"), ServiceSpec("web", replicas=1, update=policy), task_version=2)
    view = View([service])
    for number, task in enumerate(tasks):
        view.put(msgspec.structs.replace(task, service_id="web", meta=Meta(f"t{number}", created_at_ns=1 + number)))
    (slot,) = view.follower(Places).of("web").values()
    if stale(service, slot):
        for now_ns in (NOW_NS, NOW_NS + 100 * SECOND):
            found = tend(view, service, slot, now_ns, lambda: "fresh")
            assert (found.actions, found.requeue_at_ns) == ((), None)
            alone = step(view, service, [slot], (), now_ns, lambda: "fresh")
            assert alone == step(view, service, (), [slot], now_ns, lambda: "fresh")
            assert alone.actions


def test_a_step_of_an_update_looks_at_no_more_places_than_it_takes():
    service = Service(Meta("web"), ServiceSpec("web", replicas=9, update=UpdatePolicy(parallelism=2)), task_version=2)
    status = TaskStatus(TaskState.RUNNING)
    view = View([service, *(Task(Meta(f"t{slot}"), "web", 1, slot, "n1", status=status) for slot in range(1, 10))])
    services.reconcile(view, "web", NOW_NS, lambda: "fresh")
    places = view.follower(Places)
    assert places.restless("web") == []
    assert [slot.number for slot in places.stale("web")] == [*range(1, 10)]
    decision = services.reconcile(view, "web", NOW_NS, lambda: "fresh")
    assert {action.value.slot for action in decision.actions} == {1, 2}
    view.put(Task(Meta("t5"), "web", 1, 5, "n1", status=TaskStatus(TaskState.FAILED)))
    assert 5 not in [slot.number for slot in places.stale("web")]
    view.put(msgspec.structs.replace(service, task_version=3))
    assert list(places.stale("web")) == []


def test_of_a_large_service_that_is_gone_a_part_is_told_at_a_time():
    view = View(Task(Meta(f"t{slot}"), "web", 1, slot, "n1") for slot in range(1, 3001))
    first = services.reconcile(view, "web", NOW_NS, lambda: "fresh")
    for action in first.actions:
        view.put(action.value)
    rest = services.reconcile(view, "web", NOW_NS, lambda: "fresh")
    assert (len(first.actions), first.requeue_at_ns) == (2000, NOW_NS)
    assert (len(rest.actions), rest.requeue_at_ns) == (1000, None)
