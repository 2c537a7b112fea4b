"""The worker: assignments become runners, are on the disk first, and outlive agent and host."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from agent.database import Database
from agent.mesh import Mesh
from agent.reporter import Reporter
from agent.worker import Worker
from shoal.clock import SystemClock
from shoal.codec import to_wire
from shoal.errors import Conflict
from shoal.model.assignment import AssignedBackend, AssignedTask
from shoal.model.container import ContainerState
from shoal.model.network import Backend, Endpoint
from shoal.model.task import TaskState
from shoal.tasks import Group
from shoal.v1 import dispatcher_pb2 as wire
from shoal.v1 import types_pb2
from tests.unit.agent.conftest import eventually
from tests.unit.agent.host import TEMPLATE, Bench, Networks, bench, task

TEMPLATE_CHANGE = wire.AssignmentChange(template=to_wire(TEMPLATE, wire.Template))


def assignments(
    *tasks: AssignedTask, sequence: int = 1, complete: bool = True, removed: tuple[str, ...] = ()
) -> wire.Assignments:
    changes = [TEMPLATE_CHANGE] if tasks else []
    changes += [wire.AssignmentChange(task=to_wire(each, wire.AssignedTask)) for each in tasks]
    changes += [wire.AssignmentChange(remove=True, task=wire.AssignedTask(task_id=each)) for each in removed]
    return wire.Assignments(complete=complete, sequence=sequence, changes=changes)


class Running:
    """A worker at work, with its parts."""

    def __init__(self, parts: Bench, worker: Worker, database: Database, networks: Networks) -> None:
        self.parts = parts
        self.worker = worker
        self.database = database
        self.networks = networks

    def running(self) -> set[str]:
        there = self.parts.containers.there.values()
        return {each.task_id for each in there if each.status.state is ContainerState.RUNNING}


@asynccontextmanager
async def agent(folder: Path, parts: Bench, *, boot: str = "one") -> AsyncIterator[Running]:
    """An agent that is killed, not stopped, at the end of the block."""
    database = await Database.open(folder / "agent.db", boot=boot)
    reporter = Reporter(database.save_statuses, clock=parts.host.clock)
    networks = Networks()
    mesh = Mesh(networks)
    try:
        async with Group() as group:
            group.start("mesh", mesh.run())
            group.start("reporter", reporter.run())
            worker = Worker(parts.host, database=database, mesh=mesh, reporter=reporter, group=group)
            await worker.restore()
            yield Running(parts, worker, database, networks)
            raise Killed
    except* Killed:
        pass
    await database.close()


class Killed(Exception):
    pass


@pytest.fixture
def parts() -> Bench:
    parts = bench(SystemClock())
    parts.balance.balanced = False
    return parts


async def test_runs_what_is_assigned_and_removes_what_is_not(tmp_path: Path, parts: Bench) -> None:
    async with agent(tmp_path, parts) as host:
        await host.worker.assign(assignments(task(1), task(2)))
        await eventually(lambda: host.running() == {"t1", "t2"})
        await host.worker.assign(assignments(sequence=2, complete=False, removed=("t1",)))
        await eventually(lambda: [*parts.containers.there] == ["web.2.t2"])
        await host.worker.assign(assignments())
        await eventually(lambda: not parts.containers.there)
        assert (await host.database.assignment()).tasks == {}
        await eventually(lambda: not host.worker._runs)
        assert await host.database.statuses() == {}


async def test_a_killed_agent_adopts_without_restarting(tmp_path: Path, parts: Bench) -> None:
    async with agent(tmp_path, parts) as host:
        await host.worker.assign(assignments(task(1)))
        await eventually(lambda: host.running())
    done = list(parts.done)
    async with agent(tmp_path, parts) as host:
        await host.worker.assign(assignments(task(1)))
        await asyncio.sleep(0.1)
        assert host.running() == {"t1"}
        assert parts.done == done


async def test_a_rebooted_host_starts_what_it_was_told_with_no_manager(tmp_path: Path, parts: Bench) -> None:
    async with agent(tmp_path, parts) as host:
        await host.worker.assign(assignments(task(1), task(2, desired=TaskState.SHUTDOWN)))
        await eventually(lambda: host.running())
        await until_saved(host, TaskState.RUNNING)
    parts.containers.exit("web.1.t1", 255)
    async with agent(tmp_path, parts, boot="two") as host:
        await eventually(lambda: host.running() == {"t1"})


async def test_an_end_in_the_same_boot_is_an_end(tmp_path: Path, parts: Bench) -> None:
    async with agent(tmp_path, parts) as host:
        await host.worker.assign(assignments(task(1)))
        await eventually(lambda: host.running())
        await until_saved(host, TaskState.RUNNING)
    parts.containers.exit("web.1.t1", 1)
    async with agent(tmp_path, parts) as host:
        await until_saved(host, TaskState.FAILED)
        assert host.running() == set()


async def test_a_gap_asks_for_a_new_session(tmp_path: Path, parts: Bench) -> None:
    async with agent(tmp_path, parts) as host:
        with pytest.raises(Conflict, match="does not follow"):
            await host.worker.assign(assignments(task(1), sequence=2, complete=False))
        await host.worker.assign(assignments(task(1), sequence=7))
        await host.worker.assign(assignments(task(2), sequence=8, complete=False))
        with pytest.raises(Conflict, match="assignment 10 does not follow 8"):
            await host.worker.assign(assignments(task(3), sequence=10, complete=False))
        host.worker.begin_session()
        with pytest.raises(Conflict):
            await host.worker.assign(assignments(task(3), sequence=9, complete=False))
        await eventually(lambda: host.running() == {"t1", "t2"})


async def test_a_complete_assignment_in_parts_counts_with_its_last_one(tmp_path: Path, parts: Bench) -> None:
    async with agent(tmp_path, parts) as host:
        await host.worker.assign(assignments(task(1), task(2)))
        await eventually(lambda: host.running() == {"t1", "t2"})
        host.worker.begin_session()
        begin = assignments(task(3))
        begin.more = True
        await host.worker.assign(begin)
        assert set(host.worker.assignment.tasks) == {"t1", "t2"}
        await host.worker.assign(assignments(task(2), sequence=2, complete=False))
        assert set(host.worker.assignment.tasks) == {"t2", "t3"}
        await eventually(lambda: host.running() == {"t2", "t3"})


async def test_a_complete_assignment_that_breaks_off_changes_nothing(tmp_path: Path, parts: Bench) -> None:
    async with agent(tmp_path, parts) as host:
        await host.worker.assign(assignments(task(1)))
        host.worker.begin_session()
        begin = assignments(task(3))
        begin.more = True
        await host.worker.assign(begin)
        host.worker.begin_session()
        assert set((await host.database.assignment()).tasks) == {"t1"}
        await host.worker.assign(assignments(task(2)))
        assert set(host.worker.assignment.tasks) == {"t2"}


async def test_a_first_complete_assignment_sweeps_containers_of_unknown_tasks(tmp_path: Path, parts: Bench) -> None:
    parts.containers.put("web.9.t9", "t9", ContainerState.RUNNING)
    parts.containers.put("by-hand", "", ContainerState.RUNNING)
    async with agent(tmp_path, parts) as host:
        await asyncio.sleep(0.02)
        assert "web.9.t9" in parts.containers.there
        await host.worker.assign(assignments(task(1)))
        await eventually(lambda: "web.9.t9" not in parts.containers.there)
        await eventually(lambda: host.running() == {"", "t1"})


async def test_networks_are_told_before_the_tasks_and_without_those_that_end(tmp_path: Path, parts: Bench) -> None:
    endpoint = Endpoint(service_id="s1", network_id="n1", backends=(Backend("t1", "node1"),))
    backend = AssignedBackend("s1", "n1", Backend("t1", "node1"))
    message = assignments(task(1))
    alone = msgspec.structs.replace(endpoint, backends=())
    message.changes.append(wire.AssignmentChange(endpoint=to_wire(alone, types_pb2.Endpoint)))
    message.changes.append(wire.AssignmentChange(backend=to_wire(backend, wire.AssignedBackend)))
    async with agent(tmp_path, parts) as host:
        await host.worker.assign(message)
        assert host.networks.wishes[-1][1] == (endpoint,)
        await eventually(lambda: host.running())


async def test_the_end_of_membership_leaves_no_task(tmp_path: Path, parts: Bench) -> None:
    async with agent(tmp_path, parts) as host:
        await host.worker.assign(assignments(task(1), task(2)))
        await eventually(lambda: len(host.running()) == 2)
        await host.worker.end(timeout_s=10)
        assert parts.containers.there == {}
        assert (await host.database.assignment()).tasks == {}


async def until_saved(host: Running, state: TaskState) -> None:
    """Wait until the disk says it of the first task."""
    async with asyncio.timeout(60):
        while (await host.database.statuses()).get("t1") is None or (await host.database.statuses())[
            "t1"
        ].status.state is not state:
            await asyncio.sleep(0.01)
