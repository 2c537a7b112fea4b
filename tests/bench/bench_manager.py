"""The manager's deciders and mirror without any host: placing tasks, loading the mirror (`bench_store` has the writes).

Rows of `tasks/s` are better when higher.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from pathlib import Path

from manager.control.action import Put as Change
from manager.scheduler import plan
from manager.store.base import Put, Txn
from manager.store.mirror import Mirror
from manager.store.records import encode, key_for
from manager.store.sqlite.store import SqliteStore
from manager.store.view import View
from shoal.clock import SystemClock
from shoal.ids import new_id
from shoal.model.base import Meta, Resources
from shoal.model.node import Node, NodeDescription, NodeSpec, NodeState, NodeStatus
from shoal.model.service import Placement, Service, ServiceSpec, TaskSpec
from shoal.model.task import Task, TaskState, TaskStatus
from tests.bench.row import Row, row

NODES = 1_000
TASKS = 10_000
RECORDS = 100_000
ROUNDS = 5
SCRATCH = Path("build")  # /tmp may be memory, which takes no time to sync


def rows() -> list[Row]:
    SCRATCH.mkdir(exist_ok=True)
    with asyncio.Runner() as runner:
        return [*_scheduling(), _loading(runner)]


def _scheduling() -> list[Row]:
    """One service of all tasks, many services, and each task a service of its own."""
    found = []
    for name, services in (("one_service", 1), ("100_services", 100), ("10000_services", TASKS)):
        taken = []
        for _ in range(ROUNDS):
            view = _waiting(services)
            start = time.perf_counter()
            _placed(view)
            taken.append(time.perf_counter() - start)
            assert not view.tasks_unassigned()
        found.append(row(f"schedule_10000.{name}.seconds", taken, [], "s"))
        found.append(row(f"schedule_10000.{name}.rate", [TASKS / each for each in taken], [], "tasks/s"))
    return found


def _waiting(services: int) -> View:
    """A view of TASKS tasks that wait, of so many services, and NODES nodes with room."""
    room = Resources(nano_cpus=64 * 10**9, memory_bytes=64 << 30)
    view = View()
    for number in range(NODES):
        labels = {"zone": str(number % 3)}
        about = NodeDescription(hostname=f"n{number}", resources=room)
        view.put(Node(Meta(f"n{number:05}"), NodeSpec(labels=labels), about, NodeStatus(NodeState.READY)))
    reserved = Resources(nano_cpus=10**8, memory_bytes=1 << 20)
    spec = TaskSpec(reservations=reserved, placement=Placement(constraints=("node.labels.zone!=9",)))
    for number in range(services):
        service = Service(Meta(f"s{number:05}"), ServiceSpec(f"s{number}", task=spec), task_version=1)
        view.put(service)
        for slot in range(1, TASKS // services + 1):
            status = TaskStatus(state=TaskState.PENDING)
            view.put(Task(Meta(f"t{number:05}.{slot:05}"), service.meta.id, 1, slot=slot, status=status))
    return view


def _placed(view: View) -> None:
    """Decide and apply, as the loop does but without a store."""
    more: int | None = 0
    while more is not None:
        decision = plan.reconcile(view, "cluster", 10**18, new_id)
        for action in decision.actions:
            assert isinstance(action, Change)
            view.put(action.value)
        more = decision.requeue_at_ns


async def _opened(path: Path) -> SqliteStore:
    return await SqliteStore.open(path, clock=SystemClock())


def _loading(runner: asyncio.Runner) -> Row:
    """From a store that is open to a mirror that shows RECORDS tasks, as after a manager's start."""
    taken = []
    with tempfile.TemporaryDirectory(dir=SCRATCH) as folder:
        store = runner.run(_opened(Path(folder) / "store.db"))
        try:
            runner.run(_filled(store))
            for _ in range(ROUNDS):
                start = time.perf_counter()
                assert runner.run(_mirrored(store)) == RECORDS
                taken.append(time.perf_counter() - start)
        finally:
            runner.run(store.close())
    return row("mirror.load_100000.seconds", taken, [], "s")


async def _filled(store: SqliteStore) -> None:
    services = [new_id() for _ in range(RECORDS // 100)]
    for begin in range(0, RECORDS, 10_000):
        tasks = [
            Task(Meta(new_id()), services[number // 100], 1, number % 100 + 1, f"n{number % NODES:05}")
            for number in range(begin, begin + 10_000)
        ]
        puts = [Put(key_for(task), encode(task)) for task in tasks]
        await store.txn_many([Txn(puts=tuple(puts[first : first + 100])) for first in range(0, len(puts), 100)])


async def _mirrored(store: SqliteStore) -> int:
    mirror = Mirror()
    running = asyncio.create_task(mirror.run(store))
    await mirror.reached(0)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    return len(mirror.tasks)
