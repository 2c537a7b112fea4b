"""What holds for every decision of the leader, whatever users, hosts and containers do.

Safe: no bound is ever broken, not even for a moment. Converges: once nothing else happens, what runs is what was asked
for. Stable: there nothing more is decided, by nobody, not even by a new leader.
"""

from __future__ import annotations

import re
from collections import Counter
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manager.control.action import Put
from manager.control.constraint import hold
from shoal.model.base import Meta, Resources
from shoal.model.container import RestartCondition, RestartPolicy
from shoal.model.network import Network, NetworkAttachment, NetworkScope, NetworkSpec, Port, PublishMode
from shoal.model.node import Availability, NodeState
from shoal.model.service import Placement, ServiceMode, ServiceSpec, UpdateOrder, UpdatePolicy
from shoal.model.task import Task, TaskState

SECOND = 1_000_000_000
NODES = tuple(f"n{number}" for number in range(1, 5))
NAMES = ("a", "b", "c")
MEMORY = 8
CPU = 10**9

placements = st.sampled_from(
    [
        Placement(),
        Placement(constraints=("node.labels.zone==east",)),
        Placement(max_per_node=2),
        Placement(preferences=("spread=node.labels.zone",)),
        Placement(preferences=("spread=node.labels.zone", "spread=node.labels.rack")),
        Placement(("node.labels.rack!=3",), max_per_node=1, preferences=("spread=node.labels.rack",)),
    ]
)
services = st.fixed_dictionaries(
    {
        "replicas": st.integers(0, 7),
        "placement": placements,
        "force": st.integers(0, 3),
        "reservations": st.builds(Resources, st.integers(0, 2).map(lambda cpus: cpus * CPU), st.integers(0, 3)),
        "restart": st.builds(
            RestartPolicy,
            condition=st.sampled_from(RestartCondition),
            delay_ns=st.sampled_from([0, SECOND, 5 * SECOND]),
            max_attempts=st.integers(0, 3),
            window_ns=st.sampled_from([0, 10 * SECOND]),
        ),
        "update": st.builds(
            UpdatePolicy,
            parallelism=st.integers(0, 3),
            delay_ns=st.sampled_from([0, 2 * SECOND]),
            order=st.sampled_from(UpdateOrder),
        ),
        "networks": st.sampled_from([(), (NetworkAttachment("x"),), (NetworkAttachment("x"), NetworkAttachment("y"))]),
        "ports": st.sampled_from(
            [
                (),
                (Port(target=80),),
                (Port(target=80), Port(target=81)),
                (Port(target=80, published=8080, mode=PublishMode.HOST),),
                (Port(target=80, published=8081, mode=PublishMode.HOST), Port(target=81)),
            ]
        ),
    }
)
ends = st.sampled_from([TaskState.COMPLETE, TaskState.FAILED, TaskState.REJECTED])
events = st.one_of(
    st.tuples(st.just("service"), st.sampled_from(NAMES[:2]), services),
    st.tuples(st.just("global"), st.just("c"), services),
    st.tuples(st.just("remove"), st.sampled_from(NAMES), st.none()),
    st.tuples(st.just("state"), st.sampled_from(NODES), st.sampled_from(NodeState)),
    st.tuples(st.just("availability"), st.sampled_from(NODES), st.sampled_from(Availability)),
    st.tuples(st.just("zone"), st.sampled_from(NODES), st.sampled_from(["east", "west"])),
    st.tuples(st.just("leave"), st.sampled_from(NODES), st.none()),
    st.tuples(st.just("end"), st.integers(0, 30), ends),
    st.tuples(st.just("agents"), st.none(), st.none()),
    st.tuples(st.just("advance"), st.sampled_from([0.5, 3, 20, 100_000]), st.none()),
    st.tuples(st.just("settle"), st.none(), st.none()),
)


class Bounds:
    """What must hold after every single write of the leader."""

    def __init__(self) -> None:
        self.seen: dict[str, Task] = {}

    def __call__(self, world: Any) -> None:
        self.one_task_in_a_place(world)
        self.tasks_only_go_on(world)
        self.nodes_hold_what_they_have(world)
        self.pools_are_shared_out(world)

    def one_task_in_a_place(self, world: Any) -> None:
        for service in world.view.services.values():
            most = 2 if service.spec.update.order == UpdateOrder.START_FIRST else 1
            tasks = world.tasks(service.meta.id, wanted=True)
            places = Counter(place_of(task) for task in tasks)
            departed = {place_of(task) for task in tasks if task.depart_by_ns}
            assert all(count <= (2 if place in departed else most) for place, count in places.items()) or (
                service.meta.id in world.reordered
            ), places

    def tasks_only_go_on(self, world: Any) -> None:
        for id, task in world.view.tasks.items():
            before = self.seen.get(id)
            if before is not None and before is not task:
                assert task.status.state >= before.status.state
                assert task.desired >= before.desired
                assert task.slot == before.slot
                assert before.node_id in ("", task.node_id)
            if task.status.state >= TaskState.ASSIGNED:
                assert task.node_id
            assert task.status.state != TaskState.REMOVE
            self.seen[id] = task

    def nodes_hold_what_they_have(self, world: Any) -> None:
        for node in world.view.nodes.values():
            tasks = world.view.tasks_of_node(node.meta.id)
            held = [task.reservations for task in tasks if not task.finished]
            assert sum(each.memory_bytes for each in held) <= node.description.resources.memory_bytes
            assert sum(each.nano_cpus for each in held) <= node.description.resources.nano_cpus

    def pools_are_shared_out(self, world: Any) -> None:
        view = world.view
        addresses = [address.address for each in view.services.values() for address in each.addresses]
        assert len(addresses) == len(set(addresses))
        ports = [
            (port.protocol, port.published)
            for each in view.services.values()
            for port in each.ports
            if port.mode == PublishMode.INGRESS
        ]
        assert len(ports) == len(set(ports))
        numbered = [network for network in view.networks.values() if network.subnet]
        assert len({network.vni for network in numbered}) == len(numbered)
        subnets = [IPv4Network(network.subnet) for network in numbered]
        assert not any(one.overlaps(other) for one in subnets for other in subnets if one is not other)
        for network in view.networks.values():
            blocks = [IPv4Network(lease.block) for lease in view.leases_of_network(network.meta.id)]
            assert not any(one.overlaps(other) for one in blocks for other in blocks if one is not other)
            assert not any(IPv4Address(address) in block for address in addresses for block in blocks)


@pytest.fixture(scope="session")
def watched_world(new_world):
    class Watched(new_world):
        """Looks at each placement in the moment in which it is written, since services and nodes change."""

        def __init__(self) -> None:
            self.reordered: set[str] = set()  # services whose start-first became stop-first: two may still stand there
            super().__init__(task_history=2)
            for id in ("x", "y"):
                self.write(Network(Meta(id), NetworkSpec(name=id, driver="overlay"), NetworkScope.SWARM))
            for number, id in enumerate(NODES):
                labels = {"zone": "east" if number % 2 else "west", "rack": str(number // 2)}
                self.node(id, memory_bytes=MEMORY, cpus=3, labels=labels)
            self.watch = Bounds()

        def write(self, value: Any) -> Any:
            if isinstance(value, Task) and value.status.state == TaskState.ASSIGNED:
                before = self.view.tasks.get(value.meta.id)
                if before is None or before.status.state < TaskState.ASSIGNED:
                    may_be_placed(self, value)
            return super().write(value)

    return Watched


def may_be_placed(world: Any, task: Task) -> None:
    """The node of `task` can take it, by what is true right now."""
    service, node = world.view.services[task.service_id], world.view.nodes[task.node_id]
    spec = service.spec.task
    assert task.task_version == service.task_version
    assert task.reservations == spec.reservations
    assert (node.status.state, node.spec.availability) == (NodeState.READY, Availability.ACTIVE)
    assert hold(spec.placement.constraints, node)
    there = [each for each in world.view.tasks_of_node(task.node_id) if not each.finished]
    wanted = [each for each in there if each.service_id == task.service_id and stays(each)]
    assert not spec.placement.max_per_node or len(wanted) < spec.placement.max_per_node
    assert all(host_ports(service.spec).isdisjoint(host_ports(spec_of(world, each))) for each in there)


def stays(task: Task) -> bool:
    """Whether it is to run on, where it is."""
    return not task.finished and task.desired <= TaskState.RUNNING and not task.depart_by_ns


def place_of(task: Task) -> tuple[int, str]:
    return task.slot, "" if task.slot else task.node_id


def spec_of(world: Any, task: Task) -> ServiceSpec:
    """The spec it was made from, as far as it is kept."""
    service = world.view.services.get(task.service_id)
    if service is not None and task.task_version == service.task_version:
        return service.spec
    if service is not None and service.outgoing and task.task_version == service.task_version - 1:
        return service.outgoing
    return ServiceSpec()


def host_ports(spec: ServiceSpec) -> set[int]:
    return {port.published for port in spec.ports if port.mode == PublishMode.HOST}


def happen(world: Any, event: tuple[str, Any, Any]) -> None:
    kind, subject, detail = event
    match kind:
        case "service" | "global":
            known = world.view.services.get(subject)
            if known and known.spec.update.order != detail["update"].order:
                world.reordered.add(subject)
            if kind == "global":
                detail = {**detail, "replicas": 0, "mode": ServiceMode.GLOBAL}
            world.service(subject, **detail)
        case "remove" if subject in world.view.services:
            world.remove(world.view.services[subject])
        case "state" if subject in world.view.nodes:
            world.state(subject, detail)
        case "availability" if subject in world.view.nodes:
            world.availability(subject, detail)
        case "zone":
            world.node(subject, memory_bytes=MEMORY, cpus=3, labels={"zone": detail, "rack": "3"})
        case "leave" if subject in world.view.nodes and len(world.view.nodes) > 1:
            world.remove(world.view.nodes[subject])
        case "end":
            tasks = world.view.tasks.values()
            alive = [task for task in tasks if TaskState.ASSIGNED <= task.status.state <= TaskState.RUNNING]
            if alive:
                world.report(alive[subject % len(alive)], detail)
        case move:
            go_on(world, move, subject)


def go_on(world: Any, move: str, seconds: float = 1) -> None:
    """The deciders, the agents or the clock take a step."""
    match move:
        case "settle":
            world.settle()
        case "agents":
            world.agents()
        case "advance":
            world.advance(seconds)


@settings(max_examples=300, deadline=None)
@given(history=st.lists(events, max_size=25))
def test_safe_converges_stable(watched_world, history):
    world = watched_world()
    for event in history:
        happen(world, event)
    for id in NODES:
        if id in world.view.nodes:
            world.state(id, NodeState.READY)
    for _ in range(12):
        world.converge(seconds=30, limit=200)
    assert world.settle() == []
    for service in world.view.services.values():
        check_converged(world, service)
    for name in NAMES:
        if name not in world.view.services:
            assert world.tasks(name) == []


def check_converged(world: Any, service: Any) -> None:
    """What was asked for runs, or is over by its policy, or says why it waits; and not where it must not."""
    tasks = world.tasks(service.meta.id)
    wanted = [task for task in tasks if task.desired <= TaskState.RUNNING and not task.finished]
    if service.spec.mode == ServiceMode.GLOBAL:
        expected = {
            id
            for id, node in world.view.nodes.items()
            if node.spec.availability == Availability.ACTIVE and hold(service.spec.task.placement.constraints, node)
        }
        assert expected <= {task.node_id for task in tasks}
    else:
        assert len({task.slot for task in tasks}) == service.spec.replicas
    for task in tasks:
        node = world.view.nodes.get(task.node_id)
        assert task.finished or node is None or node.spec.availability != Availability.DRAIN
    for task in wanted:
        if task.status.state < TaskState.ASSIGNED:
            check_explained(world, task)
        else:
            assert (task.status.state, task.desired) == (TaskState.RUNNING, TaskState.RUNNING)
    stuck = any(task.status.state < TaskState.ASSIGNED for task in wanted)
    paused = any(node.spec.availability == Availability.PAUSE for node in world.view.nodes.values())
    # With start-first, a new task that ended for good has not taken the old one's place.
    tried = {place_of(task) for task in tasks if task.finished and task.task_version == service.task_version}
    if not stuck and not (paused and service.spec.mode == ServiceMode.GLOBAL):
        outdated = {place_of(task) for task in wanted if task.task_version != service.task_version}
        assert outdated <= (tried if service.spec.update.order == UpdateOrder.START_FIRST else set())
    history = max(2, service.spec.task.restart.max_attempts + 1 if service.spec.task.restart.max_attempts else 0)
    places = Counter(place_of(task) for task in tasks if task.finished)
    assert all(count <= history + stuck for count in places.values())


def check_explained(world: Any, task: Task) -> None:
    """Every node that was looked at is in the explanation, once."""
    found = re.fullmatch(r"no suitable node \((.*)\)(: too little .*)?", task.status.message)
    assert found, task.status.message
    counted = sum(int(number) for number in re.findall(r"(\d+) nodes?", found[1]))
    assert counted == (1 if task.node_id else len(world.view.nodes)), task.status.message


@settings(max_examples=100, deadline=None)
@given(
    replicas=st.lists(st.integers(0, 8), min_size=1, max_size=3),
    placement=placements,
    losses=st.lists(
        st.tuples(st.sampled_from(NODES), st.sampled_from(["down", "removed", "drained", "back"]), st.integers(0, 2)),
        max_size=12,
    ),
)
def test_what_a_lost_node_had_is_replaced_once(watched_world, replicas, placement, losses):
    """However often nodes are lost and come back, and however far the replacements have come by then."""
    world = watched_world()
    for name, count in zip(NAMES, replicas, strict=False):
        world.service(name, count, placement=placement)
    world.converge()
    due = sum(replicas)
    for id, how, steps in losses:
        due += lose(world, id, how)
        for _ in range(steps):
            world.settle()
            world.agents()
    for _ in range(3):
        world.converge(seconds=100, limit=200)
    made = [
        action for action in world.history if isinstance(action, Put) and action.kind == "task" and not action.guard
    ]
    assert len(made) == due
    for task in world.view.tasks.values():
        node = world.view.nodes.get(task.node_id)
        if task.finished or task.status.state < TaskState.ASSIGNED:
            continue
        if task.desired > TaskState.RUNNING:
            assert node.status.state == NodeState.DOWN
        else:
            assert (node.status.state, node.spec.availability) == (NodeState.READY, Availability.ACTIVE)


def lose(world: Any, id: str, how: str) -> int:
    """Something happens to a node; the number of tasks that must be made anew because of it. The deciders see it
    at once, as they do when they lead."""
    node = world.view.nodes.get(id)
    if node is None:
        return 0
    world.settle()
    wanted = [task for task in world.view.tasks_of_node(id) if stays(task)]
    match how:
        case "down":
            world.state(id, NodeState.DOWN)
        case "removed":
            world.remove(node)
        case "drained":
            world.availability(id, Availability.DRAIN)
        case "back":
            world.availability(id, Availability.ACTIVE)
            world.state(id, NodeState.READY)
            world.settle()
            return 0
    world.settle()
    return len(wanted)


@settings(max_examples=60, deadline=None)
@given(
    replicas=st.integers(1, 6),
    update=st.sampled_from(UpdateOrder),
    moves=st.lists(st.sampled_from(["settle", "agents", "advance", *NODES[:3]]), min_size=5, max_size=50),
)
def test_a_drain_of_healthy_tasks_takes_no_running_one_away_before_the_next_runs(new_world, replicas, update, moves):
    """However nodes are drained and taken back one after the other, while one of them is always left."""
    world = new_world(nodes=4)
    world.service(replicas=replicas, update=UpdatePolicy(order=update))
    world.converge()
    drained: set[str] = set()
    for move in moves:
        if move in NODES:
            drained ^= {move}
            world.availability(move, Availability.DRAIN if move in drained else Availability.ACTIVE)
        else:
            go_on(world, move)
        assert {task.slot for task in world.running()} == set(range(1, replicas + 1))
        assert len(world.running()) <= 2 * replicas
    world.converge()
    assert len(world.running()) == replicas
    assert drained.isdisjoint(task.node_id for task in world.running())


@settings(max_examples=60, deadline=None)
@given(
    replicas=st.integers(1, 9),
    parallelism=st.integers(1, 4),
    order=st.sampled_from(UpdateOrder),
    nodes=st.integers(1, 4),
    delay_s=st.sampled_from([0, 3]),
    moves=st.lists(st.sampled_from(["settle", "agents", "advance"]), min_size=5, max_size=60),
)
def test_an_update_of_healthy_tasks_never_takes_nor_adds_more_than_it_may(
    new_world, replicas, parallelism, order, nodes, delay_s, moves
):
    world = new_world(nodes=nodes)
    update = UpdatePolicy(parallelism, delay_s * SECOND, order)
    world.service(replicas=replicas, update=update)
    world.converge()
    world.service(replicas=replicas, update=update, force=1)
    fewest = replicas - parallelism if order == UpdateOrder.STOP_FIRST else replicas
    for move in moves:
        go_on(world, move)
        assert len(world.running()) >= fewest
        alive = [task for task in world.tasks() if TaskState.STARTING <= task.status.state <= TaskState.RUNNING]
        if order == UpdateOrder.STOP_FIRST:
            assert len({task.slot for task in alive}) == len(alive)
        else:
            assert len(world.tasks(wanted=True)) <= replicas + parallelism
    for _ in range(replicas + 1):
        world.converge(seconds=delay_s)
    assert [task.task_version for task in world.running()] == [2] * replicas
