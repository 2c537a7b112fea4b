"""World: the leader's deciders over a view in memory, with agents that do as they are told. No store, no time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, settings

from manager.control.action import Action, Put
from manager.deciders import DECIDERS, FINISH
from manager.dispatcher.assignment import redeploys
from manager.store.mirror import MirrorEvent
from manager.store.records import KINDS, Noun, kind_of
from manager.store.view import View
from shoal import defaults
from shoal.model.base import Meta, Resources
from shoal.model.cluster import Cluster
from shoal.model.container import RestartPolicy
from shoal.model.node import Availability, Node, NodeDescription, NodeSpec, NodeState, NodeStatus, Role
from shoal.model.service import Placement, Service, ServiceMode, ServiceSpec, TaskSpec, UpdatePolicy
from shoal.model.task import Task, TaskState

# Hypothesis fails an example that takes longer than it likes; how long one takes is the machine's affair.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

SECOND = 1_000_000_000
ANYWHERE = Placement()
NOTHING = Resources()


class World:
    """`settle` runs the deciders to their fixpoint, `agents` lets every live node do what it was told."""

    def __init__(self, nodes: int = 0, **cluster: Any) -> None:
        self.view = View()
        self.now_ns = 1_700_000_000 * SECOND
        self.watch: Callable[[World], None] = lambda world: None
        self.history: list[Action] = []
        self._ids = 0
        self._due: list[dict[str, None]] = [{} for _ in DECIDERS]
        self._timers: dict[tuple[int, str], int] = {}
        self.write(Cluster(Meta("c"), msgspec.structs.replace(defaults.CLUSTER, **cluster)))
        for number in range(1, nodes + 1):
            self.node(f"n{number}")

    # What users and dispatchers write

    def write(self, value: Any) -> Any:
        self.view.revision += 1
        meta = msgspec.structs.replace(value.meta, version=self.view.revision)
        if not meta.created_at_ns:
            meta = msgspec.structs.replace(meta, created_at_ns=self.now_ns)
        value = msgspec.structs.replace(value, meta=meta)
        old = self.view.put(value)
        self._happened(MirrorEvent(kind_of(value), meta.id, old, value, self.view.revision))
        return value

    def remove(self, value: Noun) -> None:
        self.view.revision += 1
        old = self.view.remove(kind_of(value), value.meta.id)
        self._happened(MirrorEvent(kind_of(value), value.meta.id, old, None, self.view.revision))

    def node(
        self,
        id: str,
        *,
        state: NodeState = NodeState.READY,
        availability: Availability = Availability.ACTIVE,
        labels: dict[str, str] | None = None,
        cpus: float = 64,
        memory_bytes: int = 64 << 30,
        **about: Any,
    ) -> Node:
        resources = Resources(nano_cpus=int(cpus * 1e9), memory_bytes=memory_bytes)
        about = {"address": "198.18.0.11", **about}
        known = self.view.nodes.get(id)
        return self.write(
            Node(
                meta=known.meta if known else Meta(id),
                spec=NodeSpec(Role.WORKER, availability, labels or {}),
                description=NodeDescription(hostname=id, resources=resources, **about),
                status=NodeStatus(state, "", self.now_ns),
            )
        )

    def service(
        self,
        name: str = "web",
        replicas: int = 1,
        *,
        restart: RestartPolicy = defaults.TASK_RESTART,
        update: UpdatePolicy = defaults.UPDATE,
        placement: Placement = ANYWHERE,
        reservations: Resources = NOTHING,
        networks: tuple[Any, ...] = (),
        force: int = 0,
        **spec: Any,
    ) -> Service:
        """Create it, or update it as the API does."""
        task = TaskSpec(
            restart=restart, placement=placement, reservations=reservations, networks=networks, force_update=force
        )
        wanted = ServiceSpec(name=name, replicas=replicas, task=task, update=update, **spec)
        known = self.view.service_named(name)
        if known is None:
            return self.write(Service(Meta(name), wanted, task_version=1))
        if not redeploys(known.spec, wanted):
            return self.write(msgspec.structs.replace(known, spec=wanted, previous=known.spec))
        version = known.task_version + 1
        before = known.spec
        return self.write(
            msgspec.structs.replace(known, spec=wanted, task_version=version, previous=before, outgoing=before)
        )

    def global_service(self, name: str = "web", **spec: Any) -> Service:
        return self.service(name, 0, mode=ServiceMode.GLOBAL, **spec)

    def report(self, task: Task, state: TaskState, *, at_ns: int | None = None) -> Task:
        """What an agent says; lower states are dropped, as the dispatcher does."""
        task = self.view.tasks[task.meta.id]
        if state <= task.status.state:
            return task
        status = msgspec.structs.replace(task.status, state=state, at_ns=self.now_ns if at_ns is None else at_ns)
        return self.write(msgspec.structs.replace(task, status=status))

    def state(self, id: str, state: NodeState) -> None:
        node = self.view.nodes[id]
        self.write(msgspec.structs.replace(node, status=NodeStatus(state, "", self.now_ns)))

    def availability(self, id: str, availability: Availability) -> None:
        node = self.view.nodes[id]
        self.write(msgspec.structs.replace(node, spec=msgspec.structs.replace(node.spec, availability=availability)))

    # What happens

    def settle(self, *, limit: int = 200) -> list[Action]:
        """Decide until nothing is left to decide, and check that nothing was missed."""
        done: list[Action] = []
        for _ in range(limit):
            for (stage, key), at_ns in list(self._timers.items()):
                if at_ns <= self.now_ns:
                    del self._timers[stage, key]
                    self._due[stage][key] = None
            stage = next((index for index, keys in enumerate(self._due) if keys), None)
            if stage is None:
                assert not (missed := self._undecided()), f"no event led to {missed}"
                return done
            keys, self._due[stage] = self._due[stage], {}
            done += self._decide(stage, keys)
        raise AssertionError(f"no fixpoint after {limit} rounds; the last actions: {done[-5:]}")

    def agents(self) -> None:
        """Every task on a live node gets as far as it may."""
        for task in list(self.view.tasks.values()):
            node = self.view.nodes.get(task.node_id)
            if node is None or node.status.state != NodeState.READY or task.status.state < TaskState.ASSIGNED:
                continue
            if task.status.state <= TaskState.RUNNING:
                self.report(task, task.desired if task.desired <= TaskState.RUNNING else TaskState.SHUTDOWN)

    def converge(self, *, seconds: float = 0, limit: int = 60) -> None:
        """Deciders and agents in turns until neither has anything to do; then `seconds` pass, and again."""
        for _ in range(limit):
            before = self.view.revision
            self.settle()
            self.agents()
            if before == self.view.revision:
                if seconds <= 0:
                    return
                self.now_ns += int(seconds * SECOND)
                seconds = 0
        raise AssertionError("the world does not come to rest")

    def advance(self, seconds: float) -> None:
        self.now_ns += int(seconds * SECOND)

    def shift(self, seconds: float) -> None:
        """The wall clock is set, as an operator does; what is waited for is as far away as before."""
        self.now_ns += int(seconds * SECOND)
        self._timers = {each: at_ns + int(seconds * SECOND) for each, at_ns in self._timers.items()}

    # What is seen

    def tasks(self, service: str = "web", *, wanted: bool | None = None) -> list[Task]:
        tasks = sorted(
            self.view.tasks_of_service(service), key=lambda task: (task.slot, task.node_id, task.meta.created_at_ns)
        )
        if wanted is None:
            return tasks
        return [task for task in tasks if (task.desired <= TaskState.RUNNING and not task.finished) is wanted]

    def running(self, service: str = "web") -> list[Task]:
        return [
            task
            for task in self.tasks(service)
            if task.status.state == TaskState.RUNNING and task.desired == TaskState.RUNNING
        ]

    def spread(self, service: str = "web") -> dict[str, int]:
        """Wanted tasks per node."""
        counts: dict[str, int] = {}
        for task in self.tasks(service, wanted=True):
            counts[task.node_id] = counts.get(task.node_id, 0) + 1
        return counts

    def _happened(self, event: MirrorEvent) -> None:
        for due, controller in zip(self._due, DECIDERS, strict=True):
            if event.kind in controller.kinds:
                due.update(dict.fromkeys(controller.keys_for(event, self.view)))

    def _decide(self, stage: int, keys: Iterable[str]) -> list[Action]:
        actions: list[Action] = []
        for key in keys:
            decision = DECIDERS[stage].reconcile(self.view, key, self.now_ns, self._mint)
            actions += decision.actions
            self._timers.pop((stage, key), None)
            if decision.requeue_at_ns is not None:
                self._timers[stage, key] = decision.requeue_at_ns
        actions = FINISH(self.view, actions, self.now_ns)
        changed = [action.key for action in actions]
        assert len(set(changed)) == len(changed), "one record is changed twice at once"
        for action in actions:
            self._apply(action)
        self.watch(self)
        return actions

    def _apply(self, action: Action) -> None:
        id = action.value.meta.id if isinstance(action, Put) else action.id
        known = self.view.get(action.kind, id)
        assert (known.meta.version if known else 0) == action.guard, f"guard of {action}"
        assert action.reason
        self.history.append(action)
        if isinstance(action, Put):
            self.write(action.value)
        else:
            assert known is not None
            self.remove(known)

    def _undecided(self) -> list[Action]:
        """What a new leader, who looks at everything, would still do."""
        found: list[Action] = []
        for controller in DECIDERS:
            keys: dict[str, None] = {}
            for kind in KINDS:
                for id, value in self.view.all(kind).items():
                    if kind in controller.kinds:
                        event = MirrorEvent(kind, id, None, value, value.meta.version)
                        keys.update(dict.fromkeys(controller.keys_for(event, self.view)))
            for key in keys:
                found += controller.reconcile(self.view, key, self.now_ns, self._mint).actions
        return found

    def _mint(self) -> str:
        self._ids += 1
        return f"t{self._ids:06}"


@pytest.fixture(scope="session")
def new_world() -> type[World]:
    """For tests that need several worlds, or one per example."""
    return World


@pytest.fixture
def world() -> World:
    """Three nodes that are up."""
    return World(nodes=3)
