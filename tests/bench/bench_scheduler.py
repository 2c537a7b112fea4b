"""The scheduler alone, on 10,000 nodes of 32 CPUs and 128 GiB in 10 zones of 4 regions. CPU seconds of one thread.

`placements_per_s` is deciding where; `written_per_s` also making the changed tasks and following them, in rounds as the
loop has them, of which `longest_round.ms` is the longest. Whatever was placed is then checked against a count of its
own: no node above what it has, no rule broken, no service uneven.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator

import msgspec

from manager.control.action import Put
from manager.control.constraint import hold
from manager.scheduler import plan
from manager.scheduler.demand import demand
from manager.scheduler.draft import Draft
from manager.scheduler.group import Group
from manager.scheduler.load import Load
from manager.store.view import View
from shoal.ids import new_id
from shoal.model.base import Meta, Resources
from shoal.model.network import Port, PublishMode
from shoal.model.node import Node, NodeDescription, NodeSpec, NodeState, NodeStatus
from shoal.model.service import Placement, Service, ServiceSpec, TaskSpec
from shoal.model.task import Task, TaskState, TaskStatus
from tests.bench.row import Row, row

NODES = 10_000
ZONES = 10
ROOM = Resources(nano_cpus=32 * 10**9, memory_bytes=128 << 30)
FIRST_PORT = 20_000
NOW_NS = 10**18
ROUNDS = 3

Placed = dict[str, Counter[str]]


def rows() -> list[Row]:
    return [
        *_rates("uniform", [uniform(1_000_000)]),
        *_rates("mixed", [mixed(number, 100) for number in range(10_000)]),
        *_rates("single", [mixed(number, 1) for number in range(50_000)]),
        *_node_failure(),
    ]


def uniform(replicas: int) -> Service:
    return Service(Meta("s0"), ServiceSpec("s0", replicas=replicas), task_version=1)


def mixed(number: int, replicas: int) -> Service:
    """One of many: 60 % with constraints, 50 % spread over zones, 5 % with a port of the host, 10 % with a bound per
    node, all with reservations."""
    constraints = (("node.labels.disk==ssd",), ("node.labels.region!=r3",), ("node.labels.disk==hdd",))
    ports = (Port(target=80, published=FIRST_PORT + number // 20, mode=PublishMode.HOST),) if number % 20 == 7 else ()
    spec = TaskSpec(
        reservations=Resources(nano_cpus=10**8 * (1 + number % 2), memory_bytes=(1 + number % 4) << 28),
        placement=Placement(
            constraints=constraints[number % 3] if number % 5 < 3 else (),
            max_per_node=1 + number % 3 if number % 10 == 4 else 0,
            preferences=("spread=node.labels.zone",) if number // 5 % 2 else (),
        ),
    )
    wanted = ServiceSpec(f"s{number}", replicas=replicas, task=spec, ports=ports)
    return Service(Meta(f"s{number:06}"), wanted, task_version=1)


def cluster() -> View:
    view = View()
    for number in range(NODES):
        zone = number % ZONES
        labels = {"zone": f"z{zone}", "region": f"r{zone % 4}", "disk": "ssd" if number % 3 else "hdd"}
        about = NodeDescription(hostname=f"n{number}", resources=ROOM)
        view.put(Node(Meta(f"n{number:05}"), NodeSpec(labels=labels), about, NodeStatus(NodeState.READY)))
    return view


def _rates(name: str, services: list[Service]) -> list[Row]:
    """Where the tasks go; and all of a round, for as many of them as can wait at once in a test."""
    count = sum(service.spec.replicas for service in services)
    deciding = []
    for _ in range(ROUNDS):
        view = cluster()
        for service in services:
            view.put(service)
        start = time.process_time()
        placed = decided(view, services)
        deciding.append(count / (time.process_time() - start))
        check(view, {id: Counter(nodes) for id, nodes in placed.items()})
    view = cluster()
    waiting = list(_some(services, 100_000))
    for service in waiting:
        wait(view, service)
    plan.reconcile(view, "cluster", NOW_NS, new_id)  # makes what follows the view from now on
    start = time.process_time()
    written, longest_s = write_rounds(view)
    writing = written / (time.process_time() - start)
    assert written == sum(service.spec.replicas for service in waiting)
    check(view, running(view))
    return [
        row(f"scheduler.{name}.placements_per_s", deciding, [], "tasks/s"),
        row(f"scheduler.{name}.written_per_s", [writing], [], "tasks/s"),
        row(f"scheduler.{name}.longest_round.ms", [longest_s * 1000], [], "ms"),
    ]


def _some(services: list[Service], most: int) -> Iterator[Service]:
    for service in services:
        replicas = min(service.spec.replicas, most)
        yield msgspec.structs.replace(service, spec=msgspec.structs.replace(service.spec, replicas=replicas))
        most -= replicas
        if not most:
            return


def decided(view: View, services: list[Service]) -> dict[str, list[str]]:
    """The node of each task, of each service."""
    draft = Draft(view.follower(Load))
    names = [node.meta.id if node else "" for node in draft.load.nodes]
    found = {}
    for service in services:
        places = Group(draft, service, demand(view, service), NOW_NS).best(service.spec.replicas)
        found[service.meta.id] = [names[place] for place in places]
    return found


def wait(view: View, service: Service) -> None:
    view.put(service)
    for slot in range(1, service.spec.replicas + 1):
        status = TaskStatus(state=TaskState.PENDING)
        view.put(Task(Meta(f"{service.meta.id}.{slot}"), service.meta.id, 1, slot=slot, status=status))


def write_rounds(view: View) -> tuple[int, float]:
    """Decide and apply, as the loop does but without a store: how many, and the seconds of the longest decision."""
    written, longest_s = 0, 0.0
    while True:
        start = time.process_time()
        decision = plan.reconcile(view, "cluster", NOW_NS, new_id)
        longest_s = max(longest_s, time.process_time() - start)
        if decision.requeue_at_ns is None:
            return written, longest_s
        for action in decision.actions:
            assert isinstance(action, Put)
            view.put(action.value)
        written += len(decision.actions)


def running(view: View) -> Placed:
    found: Placed = defaultdict(Counter)
    for task in view.tasks.values():
        assert task.node_id, task.status.message
        if task.desired <= TaskState.RUNNING:
            found[task.service_id][task.node_id] += 1
    return found


def check(view: View, placed: Placed) -> None:
    """No violation and no service that could be more even."""
    cpus: Counter[str] = Counter()
    memory: Counter[str] = Counter()
    ports: set[tuple[str, int]] = set()
    for service_id, nodes in placed.items():
        service = view.services[service_id]
        task = service.spec.task
        assert sum(nodes.values()) == service.spec.replicas
        for id, count in nodes.items():
            assert hold(task.placement.constraints, view.nodes[id])
            assert not task.placement.max_per_node or count <= task.placement.max_per_node
            cpus[id] += count * task.reservations.nano_cpus
            memory[id] += count * task.reservations.memory_bytes
            for port in service.spec.ports:
                assert count == 1 and (id, port.published) not in ports
                ports.add((id, port.published))
        _check_even(view, service, nodes)
    assert all(each <= ROOM.nano_cpus for each in cpus.values())
    assert all(each <= ROOM.memory_bytes for each in memory.values())


def _check_even(view: View, service: Service, nodes: Counter[str]) -> None:
    """There is room everywhere here, so that counts differ by one at most, of zones as of nodes in a zone."""
    spread = bool(service.spec.task.placement.preferences)
    zones: dict[str, Counter[str]] = defaultdict(Counter)
    for id, count in nodes.items():
        zones[view.nodes[id].spec.labels["zone"] if spread else ""][id] = count
    allowed = _sizes(view, service.spec.task.placement.constraints, spread=spread)
    totals = [zones[zone].total() for zone in allowed]
    assert max(totals) - min(totals) <= 1, service
    for zone, size in allowed.items():
        counts = zones[zone]
        least = min(counts.values(), default=0) if len(counts) == size else 0
        assert max(counts.values(), default=0) - least <= 1, service


_known: dict[tuple[tuple[str, ...], bool], Counter[str]] = {}


def _sizes(view: View, constraints: tuple[str, ...], *, spread: bool) -> Counter[str]:
    """How many nodes may be used, by zone."""
    if (constraints, spread) not in _known:
        _known[constraints, spread] = Counter(
            node.spec.labels["zone"] if spread else "" for node in view.nodes.values() if hold(constraints, node)
        )
    return _known[constraints, spread]


def _node_failure() -> list[Row]:
    """New homes for the tasks of a node that went down: what follows the view, and the round that places them."""
    view = cluster()
    services = [mixed(number, 100) for number in range(10_000)]
    for service in services:
        view.put(service)
    for service_id, nodes in decided(view, services).items():
        spec = view.services[service_id].spec.task
        for slot, id in enumerate(nodes, 1):
            status = TaskStatus(state=TaskState.RUNNING)
            meta = Meta(f"{service_id}.{slot}")
            view.put(Task(meta, service_id, 1, slot, id, status=status, reservations=spec.reservations))
    taken, moved = [], []
    for number in range(0, NODES, NODES // 20):
        node = view.nodes[f"n{number:05}"]
        lost = view.tasks_of_node(node.meta.id)
        start = time.process_time()
        view.put(msgspec.structs.replace(node, status=NodeStatus(NodeState.DOWN)))
        for task in lost:
            view.put(msgspec.structs.replace(task, desired=TaskState.SHUTDOWN))
            status = TaskStatus(state=TaskState.PENDING)
            view.put(Task(Meta(f"{task.meta.id}.{number}"), task.service_id, 1, task.slot, status=status))
        assert write_rounds(view)[0] == len(lost)
        taken.append((time.process_time() - start) * 1000)
        moved.append(len(lost))
        for task in lost:
            view.remove("task", task.meta.id)
    assert not view.tasks_unassigned()
    return [
        row("scheduler.node_failure.ms", taken, [], "ms"),
        row("scheduler.node_failure.tasks", moved, [], "tasks"),
    ]
