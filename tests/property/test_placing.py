"""Placing many tasks at once leads to the nodes that placing one after the other leads to; and the load that follows
the view says what one counted from scratch says."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from manager.control.action import create
from manager.control.attachment import overlays_of
from manager.control.constraint import found, hold
from manager.scheduler import plan
from manager.scheduler.demand import demand
from manager.scheduler.draft import Draft
from manager.scheduler.early import place_early
from manager.scheduler.group import Group
from manager.scheduler.load import Load, available
from manager.scheduler.rank import FAILURES, spread_key
from manager.store.view import View
from shoal.model.base import Meta, Resources
from shoal.model.network import (
    Lease,
    Network,
    NetworkAttachment,
    NetworkScope,
    NetworkSpec,
    Port,
    PublishMode,
)
from shoal.model.node import Availability, Node, NodeDescription, NodeSpec, NodeState, NodeStatus
from shoal.model.service import Placement, Service, ServiceMode, ServiceSpec, TaskSpec
from shoal.model.task import Task, TaskState, TaskStatus

NOW_NS = 10**18
BLOCKS = {f"10.9.0.{first}/29": first for first in range(8, 128, 8)}  # of 10.9.0.0/25, the first is for services

labels = st.fixed_dictionaries({}, optional={"zone": st.sampled_from("abc"), "rack": st.sampled_from("12")})
availabilities = st.sampled_from([Availability.ACTIVE] * 4 + [Availability.PAUSE])
nodes = st.builds(
    Node,
    spec=st.builds(
        NodeSpec, availability=st.sampled_from([Availability.ACTIVE] * 4 + [Availability.PAUSE]), labels=labels
    ),
    description=st.builds(
        NodeDescription,
        resources=st.builds(Resources, st.integers(0, 40), st.integers(0, 60), st.sampled_from([0, 0, 30])),
    ),
    status=st.builds(NodeStatus, state=st.sampled_from([NodeState.READY] * 5 + [NodeState.DOWN])),
)
ports = st.sampled_from([(), (), (Port(target=80, published=8080, mode=PublishMode.HOST),)])
placements = st.builds(
    Placement,
    constraints=st.sampled_from([(), (), ("node.labels.zone==a",), ("node.labels.rack!=1",), ("node.id==n3",)]),
    max_per_node=st.sampled_from([0, 0, 0, 1, 3]),
    preferences=st.sampled_from(
        [(), ("spread=node.labels.zone",), ("spread=node.labels.zone", "spread=node.labels.rack")]
    ),
)
specs = st.builds(
    ServiceSpec,
    task=st.builds(
        TaskSpec,
        reservations=st.builds(Resources, st.integers(0, 3), st.sampled_from([0, 2]), st.sampled_from([0, 1])),
        placement=placements,
        networks=st.sampled_from([(), (), (NetworkAttachment("x"),), (NetworkAttachment("x"), NetworkAttachment("y"))]),
    ),
    ports=ports,
)
states = st.sampled_from(
    [TaskState.RUNNING, TaskState.RUNNING, TaskState.ASSIGNED, TaskState.FAILED, TaskState.PENDING]
)


def ids(count: int) -> st.SearchStrategy[str]:
    return st.integers(1, count).map(lambda number: f"n{number}")


@st.composite
def views(draw: Any) -> View:
    """A few nodes, three services with tasks on them, two networks of which one is tight."""
    view = View()
    view.put(Network(Meta("x"), NetworkSpec("x"), NetworkScope.SWARM, "10.9.0.0/26", block_prefix=29))
    view.put(Network(Meta("y"), NetworkSpec("y"), NetworkScope.SWARM, "10.8.0.0/24", block_prefix=29))
    for number, node in enumerate(draw(st.lists(nodes, max_size=8)), 1):
        view.put(msgspec.structs.replace(node, meta=Meta(f"n{number}")))
    for id in "abc":
        view.put(Service(Meta(id), draw(specs), task_version=1))
    for number, (id, node_id, state, told) in enumerate(
        draw(st.lists(st.tuples(st.sampled_from("abc"), ids(9), states, st.booleans()), max_size=20))
    ):
        desired = TaskState.SHUTDOWN if told and state == TaskState.FAILED else TaskState.RUNNING
        reserved = view.services[id].spec.task.reservations
        status = TaskStatus(state=state, at_ns=NOW_NS)
        view.put(Task(Meta(f"t{number}"), id, 1, 1, node_id, desired, status, reserved))
    for number in range(draw(st.sampled_from([0, 0, FAILURES]))):
        view.put(Task(Meta(f"f{number}"), "a", 1, 1, "n1", status=TaskStatus(TaskState.FAILED, at_ns=NOW_NS)))
    for node_id in draw(st.sets(ids(9), max_size=5)):
        view.put(Lease(Meta(f"x.{node_id}"), "x", node_id, f"10.9.0.{8 * int(node_id[1:])}/29"))
    return view


class OneByOne:
    """The same decision as it is defined: each task to the best node, looked for among all."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.nodes = [view.nodes[id] for id in sorted(view.nodes)]
        self.free = {node.meta.id: list(msgspec.structs.astuple(node.description.resources)) for node in self.nodes}
        for node in self.nodes:
            self.free[node.meta.id][2] = self.free[node.meta.id][2] or 10**9
        self.total: Counter[str] = Counter()
        self.own: dict[str, Counter[str]] = defaultdict(Counter)
        self.ports: set[tuple[str, int]] = set()
        self.left: dict[str, dict[str, int]] = defaultdict(dict)
        for lease in view.leases.values():
            self.left[lease.network_id][lease.node_id] = 5
        sizes = {"x": 8, "y": 32}
        self.blocks = {id: sizes[id] - len(view.leases_of_network(id)) - 1 for id in sizes}
        for task in view.tasks.values():
            if TaskState.ASSIGNED <= task.status.state <= TaskState.RUNNING:
                self.put(view.services[task.service_id], task.node_id)

    def put(self, service: Service, node_id: str) -> None:
        self.total[node_id] += 1
        self.own[service.meta.id][node_id] += 1
        needs = msgspec.structs.astuple(service.spec.task.reservations)
        self.free[node_id] = [have - need for have, need in zip(self.free.get(node_id, [0] * 3), needs, strict=True)]
        self.ports |= {(node_id, port.published) for port in service.spec.ports}
        for network in overlays_of(self.view, service):
            self.blocks[network.meta.id] -= node_id not in self.left[network.meta.id]
            self.left[network.meta.id][node_id] = self.left[network.meta.id].get(node_id, 5) - 1

    def fits(self, service: Service, node: Node) -> bool:
        spec, id = service.spec.task, node.meta.id
        needs = zip(self.free[id], msgspec.structs.astuple(spec.reservations), strict=True)
        networks = [network.meta.id for network in overlays_of(self.view, service)]
        return (
            available(node)
            and hold(spec.placement.constraints, node)
            and all(have >= need or not need for have, need in needs)
            and not any((id, port.published) in self.ports for port in service.spec.ports)
            and not 0 < spec.placement.max_per_node <= self.own[service.meta.id][id]
            and all(self.left[each].get(id, 5 if self.blocks[each] > 0 else 0) > 0 for each in networks)
        )

    def best(self, service: Service, amount: int) -> list[str]:
        failures = Counter(
            task.node_id
            for task in self.view.tasks_of_service(service.meta.id)
            if task.status.state == TaskState.FAILED
        )
        own = self.own[service.meta.id]
        keys = [spread_key(each) for each in service.spec.task.placement.preferences]
        candidates = [
            node for node in self.nodes if available(node) and hold(service.spec.task.placement.constraints, node)
        ]
        placed = []
        for _ in range(amount):
            alike: Counter[tuple[str, ...]] = Counter()
            for node in candidates:
                for depth in range(1, len(keys) + 1):
                    alike[tuple(found(key, node) for key in keys[:depth])] += own[node.meta.id]

            def rank(node: Node, alike: Counter[tuple[str, ...]] = alike) -> Any:
                texts = tuple(found(key, node) for key in keys)
                branches = [(alike[texts[:depth]], texts[depth - 1]) for depth in range(1, len(keys) + 1)]
                bad = failures[node.meta.id] >= FAILURES
                return (*branches, bad, own[node.meta.id], self.total[node.meta.id], node.meta.id)

            fit = [node for node in candidates if self.fits(service, node)]
            if not fit:
                break
            best = min(fit, key=rank).meta.id
            self.put(service, best)
            placed.append(best)
        return placed


@settings(max_examples=500, deadline=None)
@given(
    view=views(), wanted=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 60)), unique_by=lambda each: each[0])
)
def test_at_once_leads_to_the_same_nodes_as_one_by_one(view, wanted):
    draft, model = Draft(Load(view)), OneByOne(view)
    ids = {place: id for id, place in draft.load.places.items()}
    for id, amount in wanted:
        service = view.services[id]
        places = Group(draft, service, demand(view, service), NOW_NS).best(amount)
        assert Counter(ids[place] for place in places) == Counter(model.best(service, amount))


@settings(max_examples=200, deadline=None)
@given(view=views(), parts=st.lists(st.integers(1, 40), min_size=1, max_size=4))
def test_a_group_may_be_placed_in_parts(view, parts):
    """So that a round may end anywhere."""
    service = view.services["a"]

    def placed(amounts: list[int]) -> Counter[int]:
        group = Group(Draft(Load(view)), service, demand(view, service), NOW_NS)
        return Counter(place for amount in amounts for place in group.best(amount))

    assert placed(parts) == placed([sum(parts)])


@settings(max_examples=200, deadline=None)
@given(view=views(), amounts=st.fixed_dictionaries({}, optional={id: st.integers(1, 30) for id in "abc"}))
def test_what_is_placed_early_goes_where_the_plan_would_send_it(view, amounts):
    for task in view.tasks_unassigned():
        view.remove("task", task.meta.id)
    waiting = TaskStatus(state=TaskState.PENDING)
    new = [
        Task(Meta(f"new{id}{slot:03}", created_at_ns=NOW_NS), id, 1, slot, status=waiting)
        for id, amount in amounts.items()
        for slot in range(amount)
    ]
    early = [action.value for action in place_early(view, [create(task, "new") for task in new], NOW_NS)]
    for task in new:
        view.put(task)
    for action in plan.reconcile(view, "cluster", NOW_NS, str).actions:
        view.put(action.value)
    assert [(task.service_id, task.node_id) for task in early] == [
        (task.service_id, view.tasks[task.meta.id].node_id) for task in new
    ]


changes = st.one_of(
    st.tuples(st.just("node"), ids(12), nodes),
    st.tuples(
        st.just("task"), st.integers(0, 12), st.tuples(st.sampled_from("abcd"), ids(12), st.sampled_from(TaskState))
    ),
    st.tuples(st.just("told"), st.integers(0, 12), st.sampled_from(TaskState)),
    st.tuples(st.just("service"), st.sampled_from("abcd"), st.tuples(specs, st.booleans())),
    st.tuples(st.just("network"), st.sampled_from(["x", "y", "z"]), st.sampled_from(["x", "y", "z"])),
    st.tuples(st.just("lease"), ids(12), st.tuples(st.sampled_from("xyz"), st.sampled_from([28, 29]))),
    st.tuples(st.just("gone"), st.sampled_from(["node", "service", "task", "network", "lease"]), st.integers(0, 12)),
)


def happen(view: View, change: tuple[str, Any, Any]) -> None:
    match change:
        case ("node", id, node):
            view.put(msgspec.structs.replace(node, meta=Meta(id)))
        case ("task", number, (service_id, node_id, state)):
            known = view.tasks.get(f"t{number}")
            if known is None:
                service = view.services.get(service_id)
                version, spec = (service.task_version, service.spec) if service else (1, ServiceSpec())
                status = TaskStatus(state=state, at_ns=NOW_NS)
                reserved = spec.task.reservations
                view.put(
                    Task(Meta(f"t{number}"), service_id, version, 1, node_id, status=status, reservations=reserved)
                )
            else:
                view.put(msgspec.structs.replace(known, status=TaskStatus(state=state, at_ns=NOW_NS)))
        case ("told", number, desired) if f"t{number}" in view.tasks:
            view.put(msgspec.structs.replace(view.tasks[f"t{number}"], desired=desired))
        case ("service", id, (spec, redeploys)):
            known = view.services.get(id)
            if known is None:
                view.put(Service(Meta(id), spec, task_version=1))
            elif redeploys:
                version = known.task_version + 1
                view.put(msgspec.structs.replace(known, spec=spec, outgoing=known.spec, task_version=version))
            else:
                view.put(msgspec.structs.replace(known, spec=spec))
        case ("network", id, name):
            spec = NetworkSpec(name, ingress=id == "z")
            view.put(Network(Meta(id), spec, NetworkScope.SWARM, "10.9.0.0/25", block_prefix=29))
        case ("lease", node_id, (network_id, prefix)):
            view.put(Lease(Meta(f"{network_id}.{node_id}"), network_id, node_id, f"10.9.0.0/{prefix}"))
        case ("gone", kind, number) if records := sorted(view.all(kind)):
            view.remove(kind, records[number % len(records)])


def facts(load: Load, view: View) -> dict[str, Any]:
    """All that a decision can see, by the nodes' ids."""
    ids = {place: id for id, place in load.places.items()}
    order = [ids[place] for place in load.order().tolist()]
    draft = Draft(load)
    return {
        "order": order,
        "free": {id: load.free[:, load.places[id]].tolist() for id in order},
        "total": {id: load.total.item(place) for id, place in load.places.items() if load.total.item(place)},
        "own": {key: {ids[place]: count for place, count in own.items()} for key, own in load.of_service.items()},
        "failed": {key: sorted(tasks) for key, tasks in load.failed.items()},
        "ports": {port: {ids[place] for place in held} for port, held in load.host_ports.items() if held},
        "networks": {
            id: {node: draft.overlay(id).left(load.order()).tolist()[place] for place, node in enumerate(order)}
            for id in view.networks
        },
        "candidates": {
            id: [
                ids[place]
                for place in load.candidates(
                    service.spec.task.placement.constraints,
                    tuple(map(spread_key, service.spec.task.placement.preferences)),
                ).places.tolist()
            ]
            for id, service in view.services.items()
        },
    }


@settings(max_examples=500, deadline=None)
@given(view=views(), history=st.lists(changes, max_size=30))
def test_the_load_that_follows_the_view_is_the_one_counted_from_scratch(view, history):
    load = view.follower(Load)
    for change in history:
        changes, before = load.changes, {**facts(load, view), "failed": None}
        happen(view, change)
        after = facts(load, view)
        assert after == facts(Load(view), view)
        assert load.changes > changes or {**after, "failed": None} == before, "a change that nobody is told of"


@settings(max_examples=100, deadline=None)
@given(view=views(), history=st.lists(changes, max_size=15))
def test_a_global_service_has_no_task_on_a_node_that_has_no_room(view, history):
    """One node at a time is asked by the same filters as all of them."""
    for change in history:
        happen(view, change)
    for service in view.services.values():
        service = msgspec.structs.replace(service, spec=msgspec.structs.replace(service.spec, mode=ServiceMode.GLOBAL))
        for id in view.nodes:
            draft = Draft(view.follower(Load))
            group = Group(draft, service, demand(view, service), NOW_NS)
            refused = group.refusals().at(draft.load.places[id])
            assert (group.on(id) is None) == (refused != "no suitable node ()"), refused
