"""The short way of ranking nodes, for few tasks, comes to what the long one does; and both even things out."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from manager.scheduler.load import Demand, Load
from manager.scheduler.rank import Emptiest, Ranking
from manager.store.view import View
from shoal.model.base import Meta, Resources
from shoal.model.node import Node
from shoal.model.service import Service, ServiceSpec
from shoal.model.task import Task, TaskState, TaskStatus

NOW_NS = 10**18


def view_of(loads: list[tuple[int, int, int]]) -> View:
    """Nodes with so many tasks of others, of the service, and failed ones of the service."""
    view = View([Service(Meta("web"), ServiceSpec(name="web"), task_version=1), Service(Meta("other"))])
    for number, counts in enumerate(loads):
        node_id = f"n{number}"
        view.put(Node(Meta(node_id)))
        kinds = (("other", TaskState.RUNNING), ("web", TaskState.RUNNING), ("web", TaskState.FAILED))
        for (service_id, state), count in zip(kinds, counts, strict=True):
            for each in range(count):
                status = TaskStatus(state=state, at_ns=NOW_NS)
                meta = Meta(f"{node_id}.{service_id}.{state.name}.{each}")
                view.put(Task(meta, service_id, 1, node_id=node_id, status=status))
    return view


def placed(view: View, room: list[int], tasks: int, *, short: bool) -> list[int | None]:
    load = Load(view)
    places = list(range(len(load.nodes)))
    service = view.services["web"]
    ranking = Ranking(view, load, service, places, NOW_NS, Emptiest(load, places) if short else None)
    wanted = Demand("web", Resources(), (), ())
    taken: Counter[int] = Counter()
    found = []
    for _ in range(tasks):
        place = ranking.take(lambda place: taken[place] < room[place])
        if place is not None:
            taken[place] += 1
            load.place(place, wanted)
        found.append(place)
    return found


@settings(max_examples=200, deadline=None)
@given(
    loads=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3), st.sampled_from([0, 0, 0, 6])), max_size=9),
    room=st.lists(st.integers(0, 4), min_size=9, max_size=9),
    tasks=st.integers(0, 24),
)
def test_the_short_way_leads_to_the_same_nodes(loads, room, tasks):
    view = view_of(loads)
    found = placed(view, room, tasks, short=True)
    assert found == placed(view, room, tasks, short=False)
    assert sum(place is not None for place in found) == min(tasks, sum(room[: len(loads)]))


@settings(max_examples=100, deadline=None)
@given(others=st.lists(st.integers(0, 9), min_size=1, max_size=9), tasks=st.integers(0, 40))
def test_a_service_is_spread_evenly_whatever_else_runs(others, tasks):
    counts = Counter(placed(view_of([(each, 0, 0) for each in others]), [99] * 9, tasks, short=False))
    per_node = [counts[place] for place in range(len(others))]
    assert max(per_node) - min(per_node) <= 1
