"""Ranking: which of the candidates gets the next task of a service.

Placement preferences (`spread=node.labels.zone`) cut the candidates into branches, which are evened out level by
level; nodes that lack the label are one branch. Within a branch: nodes where this version keeps failing come last,
then the fewest tasks of the service, then the fewest tasks, then the lowest id.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from manager.control.constraint import found
from manager.scheduler.load import Load
from manager.store.view import View
from shoal.errors import InvalidArgument
from shoal.model.service import Service
from shoal.model.task import TaskState

FAILURES = 5
FAILURES_WITHIN_NS = 5 * 60 * 1_000_000_000
_FAILED = frozenset({TaskState.FAILED, TaskState.REJECTED})
_SPREAD = "spread="


class Branch:
    """Candidates that are alike in all preferences above; `take` gives the best of them and counts it."""

    def __init__(
        self, load: Load, service_id: str, places: Iterable[int], keys: Sequence[str], failing: Collection[int]
    ) -> None:
        own: Mapping[int, int] = load.of_service.get(service_id, {})
        self._children: list[Branch] = []
        self._heap: list[tuple[bool, int, int, int]] = []
        if not keys:
            total = load.total
            self._heap = [(place in failing, own.get(place, 0), total[place], place) for place in places]
            self.count = sum(entry[1] for entry in self._heap) if own else 0
            heapq.heapify(self._heap)
            return
        labels: dict[str, list[int]] = {}
        for place in places:
            labels.setdefault(found(keys[0], load.nodes[place]), []).append(place)
        self._children = [Branch(load, service_id, labels[label], keys[1:], failing) for label in sorted(labels)]
        self.count = sum(child.count for child in self._children)

    def take(self, fits: Callable[[int], bool]) -> int | None:
        """The best node that `fits`; None when there is none. One that does not fit now is not asked again."""
        place = self._take_leaf(fits) if not self._children else self._take_child(fits)
        self.count += place is not None
        return place

    def _take_child(self, fits: Callable[[int], bool]) -> int | None:
        for child in sorted(self._children, key=lambda child: child.count):
            if (place := child.take(fits)) is not None:
                return place
        return None

    def _take_leaf(self, fits: Callable[[int], bool]) -> int | None:
        heap = self._heap
        while heap:
            bad, own, total, place = heap[0]
            if fits(place):
                heapq.heapreplace(heap, (bad, own + 1, total + 1, place))
                return place
            heapq.heappop(heap)
        return None


class Emptiest:
    """Candidates by how many tasks they have, shared by all services with the same constraints: most services are
    small, and would else rank every node for a few tasks. Entries are corrected when they come up."""

    def __init__(self, load: Load, places: Iterable[int]) -> None:
        self._total = load.total
        self._heap = [(load.total[place], place) for place in places]
        heapq.heapify(self._heap)

    def take(self, fits: Callable[[int], bool]) -> int | None:
        heap = self._heap
        unfit = []
        found = None
        while heap and found is None:
            total, place = heap[0]
            if total != self._total[place]:
                heapq.heapreplace(heap, (self._total[place], place))
            elif fits(place):
                found = place
            else:
                unfit.append(heapq.heappop(heap))
        for entry in unfit:
            heapq.heappush(heap, entry)
        return found


class Ranking:
    """The candidates of one service, best first. With `emptiest`, nodes that have none of its tasks are found without
    ranking the others; the order is the same."""

    def __init__(
        self, view: View, load: Load, service: Service, places: Sequence[int], now_ns: int, emptiest: Emptiest | None
    ) -> None:
        self._load = load
        self._service_id = service.meta.id
        self._places = places
        self._keys = [spread_key(each) for each in service.spec.task.placement.preferences]
        self._failing = _failing(view, load, service, now_ns)
        self._emptiest = None if self._keys else emptiest
        self._branch: Branch | None = None

    def take(self, fits: Callable[[int], bool]) -> int | None:
        """The node for the next task, which must be put into the load before asking again; None: it fits nowhere."""
        if self._emptiest is not None:
            own = self._load.of_service[self._service_id]
            failing = self._failing
            place = self._emptiest.take(lambda each: not own[each] and each not in failing and fits(each))
            if place is not None:
                return place
            self._emptiest = None
        if self._branch is None:
            self._branch = Branch(self._load, self._service_id, self._places, self._keys, self._failing)
        return self._branch.take(fits)


def spread_key(preference: str) -> str:
    """What a preference spreads over. Raises InvalidArgument for any other than a node's or engine's label."""
    text = "".join(preference.split())
    key = text.removeprefix(_SPREAD)
    if not text.startswith(_SPREAD) or not key.startswith(("node.labels.", "engine.labels.")):
        raise InvalidArgument(
            f"placement preference {preference!r} is unknown", hint="write it as spread=node.labels.NAME"
        )
    return key


def _failing(view: View, load: Load, service: Service, now_ns: int) -> set[int]:
    """Nodes on which this version of the service has failed again and again."""
    failures = Counter(
        task.node_id
        for task in view.tasks_of_service(service.meta.id)
        if task.status.state in _FAILED
        and task.task_version == service.task_version
        and task.since_ns(now_ns) > now_ns - FAILURES_WITHIN_NS
    )
    return {load.index[id] for id, count in failures.items() if count >= FAILURES and id in load.index}
