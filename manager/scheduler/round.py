"""Round: one draft, and a bounded part of the plan that is decided on it. What the rounds before found out, and still
holds, is in the queue's memory."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice

import msgspec

from manager.control.action import Action, Put, change, touched
from manager.scheduler.demand import Demand, demand
from manager.scheduler.draft import Draft
from manager.scheduler.filter import Refusals
from manager.scheduler.group import Group
from manager.scheduler.load import Load
from manager.scheduler.queue import Queue
from manager.store.view import View
from shoal.model.service import Service
from shoal.model.task import Task, TaskState

AT_ONCE = 2000  # tasks decided in a round
# How many nodes a round looks at, for one service after the other. A service costs as much as some of them even if no
# node is looked at, and so does a task.
_LOOKS = 500_000
_LOOKS_FOR_GROUP, _LOOKS_FOR_ONE = 300, 50


class Round:
    """`cut`: there is more to look at than one round may."""

    def __init__(self, view: View, now_ns: int) -> None:
        self.cut = False
        self._view = view
        self._now_ns = now_ns
        self._load = view.follower(Load)
        self._queue = view.follower(Queue)
        self._memory = self._queue.memory
        self._memory.recall(self._load.freed)
        self._draft = Draft(self._load)

    def place(self) -> list[Action]:
        """The tasks that can be sent to a node."""
        actions: list[Action] = []
        for service, tasks in self._groups():
            if self._is_over(actions):
                break
            loose = (task for task in tasks if task.meta.id not in self._memory.stuck)
            some = list(islice(loose, AT_ONCE - len(actions)))
            actions += [self._assigned(*pair) for pair in self._placed(service, some, first=not actions)]
        return actions

    def place_new(self, new: dict[str, list[Put]]) -> dict[str, Action]:
        """Those of the actions, which create tasks, that have a node now; by key."""
        placed: dict[str, Action] = {}
        for service_id, actions in new.items():
            service = self._view.services.get(service_id)
            if service is None or self._is_over(placed):
                continue
            by_id = {action.value.meta.id: action for action in actions}
            tasks = [task for action in actions if isinstance(task := action.value, Task)]
            for task, place in self._placed(service, tasks, first=False):
                action = by_id[task.meta.id]
                placed[action.key] = msgspec.structs.replace(action, value=self._sent(task, place))
        return placed

    def explain(self) -> list[Action]:
        """Why the others wait, those first that have not been told for longest. When nothing can be placed any more,
        because a later one may take what an earlier one did not want."""
        actions: list[Action] = []
        now, told = (self._load.changes, self._memory.arrived), self._memory.told
        refusals: dict[Demand, Refusals] = {}
        for service, tasks in sorted(self._groups(), key=lambda group: told.get(group[0].meta.id, (-1, -1))):
            if told.get(service.meta.id) == now:
                continue
            if self._is_over(actions):
                return actions
            wanted = demand(self._view, service)
            if wanted not in refusals:
                refusals[wanted] = Group(self._draft, service, wanted, self._now_ns).refusals()
            some = list(islice(self._told(tasks, refusals[wanted]), AT_ONCE - len(actions)))
            if not some:
                told[service.meta.id] = now
            actions += some
        if not actions:
            self._memory.settled = (self._load.freed, self._memory.arrived)
        return actions

    def _groups(self) -> Iterator[tuple[Service, Iterable[Task]]]:
        """By service. An outdated task is left out: `place` puts a present one into its place."""
        for service_id, tasks in self._queue.groups().items():
            service = self._view.services.get(service_id)
            if service is not None:
                yield service, _present(service, tasks)

    def _is_over(self, done: Collection[object]) -> bool:
        self.cut = self.cut or len(done) >= AT_ONCE or self._draft.looked >= _LOOKS
        return self.cut

    def _placed(self, service: Service, tasks: list[Task], *, first: bool) -> Iterable[tuple[Task, int]]:
        """Those that fit, with the places of their nodes. `first`: nothing was placed on this draft yet, so that what
        does not fit is known to be stuck."""
        if not tasks:
            return ()
        self._draft.looked += _LOOKS_FOR_GROUP + _LOOKS_FOR_ONE * len(tasks)
        wanted = demand(self._view, service)
        if tasks[0].node_id:
            return self._on_their_own(Group(self._draft, service, wanted, self._now_ns), tasks, first=first)
        if wanted in self._memory.stuck:
            return ()
        places = Group(self._draft, service, wanted, self._now_ns).best(len(tasks))
        if first and not places:
            self._memory.stuck.add(wanted)
        return zip(tasks, places, strict=False)

    def _on_their_own(self, group: Group, tasks: list[Task], *, first: bool) -> list[tuple[Task, int]]:
        """A global service's tasks, each on the one node that it is for."""
        found = []
        for task in tasks:
            place = group.on(task.node_id)
            if place is not None:
                found.append((task, place))
            elif first and not found:
                self._memory.stuck.add(task.meta.id)
        return found

    def _assigned(self, task: Task, place: int) -> Action:
        sent = self._sent(task, place)
        return change(sent, f"best of the nodes that fit: {sent.node_id}")

    def _sent(self, task: Task, place: int) -> Task:
        node = self._load.nodes[place]
        service = self._view.services[task.service_id]
        assert node is not None
        status = msgspec.structs.replace(
            task.status, state=TaskState.ASSIGNED, message="assigned to a node", at_ns=self._now_ns
        )
        reserved = service.spec.task.reservations
        return touched(task, self._now_ns, node_id=node.meta.id, status=status, reservations=reserved)

    def _told(self, tasks: Iterable[Task], refusals: Refusals) -> Iterator[Action]:
        """Written only when it says something new."""
        nowhere = refusals.everywhere()
        for task in tasks:
            place = self._load.places.get(task.node_id)
            why = nowhere if place is None or self._load.nodes[place] is None else refusals.at(place)
            if task.status.message != why:
                status = msgspec.structs.replace(task.status, message=why, at_ns=self._now_ns)
                yield change(touched(task, self._now_ns, status=status), why)


def _present(service: Service, tasks: Mapping[str, Task]) -> Iterator[Task]:
    return (task for task in tasks.values() if task.task_version == service.task_version)
