"""A real manager process with thousands of hollow agents: how fast tasks run, what idle agents cost, and a storm.

`python -m tests.bench.bench_agents [tasks|tasks.etcd|idle|storm] [AGENTS]` measures one of them with as many agents as
wanted. Rows of `tasks/s` are better when higher. Wall time is that of two processes that share this machine's cores
with whatever else runs; the manager's CPU, which a row of its own tells, depends on that much less.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from shoal.process import allow_files
from shoal.v1 import control_pb2 as wire
from shoal.v1.control_pb2_grpc import ControlServiceStub
from shoal.v1.types_pb2 import NODE_STATE_DOWN
from tests import etcd
from tests.bench.fleet import PROJECT, Fleet, Hollows, until
from tests.bench.row import Row, row

SCRATCH = Path("build")  # /tmp may be memory, which takes no time to sync
AGENTS = 1_000
TASKS = 10_000
ROUNDS = 3
IDLE_AGENTS = 5_000
IDLE_S = 30.0
FROZEN = 20
STORM_AGENTS = 10_000
STORM_S = 30.0
ARRIVAL_S = 300.0


def rows() -> list[Row]:
    return [*tasks(AGENTS), *tasks_through_etcd(AGENTS), *idle(IDLE_AGENTS), *storm(STORM_AGENTS)]


def tasks(agents: int) -> list[Row]:
    """`service create --replicas 10000`, from the command until the manager has durably heard that all run."""
    with _fleet(agents) as fleet:
        return _tasks_of(fleet, agents, "")


def tasks_through_etcd(agents: int) -> list[Row]:
    """The same, with the state in an etcd that syncs to the disk; nothing where none is installed."""
    if shutil.which("etcd") is None:
        return []
    with (
        tempfile.TemporaryDirectory(dir=_scratch()) as folder,
        etcd.running(Path(folder).absolute()) as (member,),
        _fleet(agents, endpoint=member.client) as fleet,
    ):
        return _tasks_of(fleet, agents, ".etcd")


def _tasks_of(fleet: Fleet, agents: int, which: str) -> list[Row]:
    taken, cpu = [], []
    hollows = fleet.hollow(agents, over_s=agents / 100)
    _all_there(hollows, agents)
    control = fleet.manager.control()
    for _ in range(ROUNDS):
        before, start = fleet.manager.cpu_s(), time.monotonic()
        _shoal(fleet, "service", "create", "--detach", "--name", "many", "--replicas", str(TASKS), "hollow:1")
        until(lambda: _running(control, "many") == TASKS, seconds=ARRIVAL_S, what="all tasks run", every_s=0.05)
        taken.append(time.monotonic() - start)
        cpu.append(fleet.manager.cpu_s() - before)
        _shoal(fleet, "service", "rm", "many")
        until(lambda: not _tasks(control), seconds=ARRIVAL_S, what="all tasks are gone", every_s=0.5)
    return [
        row(f"cluster.tasks_per_s{which}", [TASKS / each for each in taken], [], "tasks/s"),
        row(f"cluster.cpu_us_per_task{which}", [each / TASKS * 1e6 for each in cpu], [], "us"),
    ]


def idle(agents: int) -> list[Row]:
    """What a manager takes of a core for agents that have nothing to do, and how soon it notices those that die."""
    with _fleet(agents) as fleet:
        many = fleet.hollow(agents - FROZEN, over_s=agents / 100)
        few = fleet.hollow(FROZEN)
        _all_there(many, agents - FROZEN)
        _all_there(few, FROZEN)
        time.sleep(IDLE_S / 3)
        before, start = fleet.manager.cpu_s(), time.monotonic()
        time.sleep(IDLE_S)
        share = (fleet.manager.cpu_s() - before) / (time.monotonic() - start)
        assert many.told["lost"] == 0
        control = fleet.manager.control()
        dying = [each.node_id for each in fleet.identities[agents - FROZEN :]]
        fleet.freeze(few)
        noticed = until(lambda: _dead(control, dying), seconds=60, what="the dead are noticed", every_s=0.1)
    return [
        row(f"agents.cpu_share_{agents}", [share], [], "cores"),
        row(f"agents.dead_noticed_{agents}.seconds", [noticed], [], "s"),
    ]


def storm(agents: int) -> list[Row]:
    """All agents come within STORM_S; `lost` are sessions that never stood or that broke off."""
    with _fleet(agents) as fleet:
        before, start = fleet.manager.cpu_s(), time.monotonic()
        # Two processes, as one would be busier than the manager.
        halves = [fleet.hollow(count, over_s=STORM_S) for count in (agents // 2, agents - agents // 2)]
        with contextlib.suppress(AssertionError):
            until(lambda: _told(halves, "connected") == agents, seconds=ARRIVAL_S, what="all agents are connected")
        taken, cpu = time.monotonic() - start, fleet.manager.cpu_s() - before
        time.sleep(10)
        lost = agents - _told(halves, "connected") + _told(halves, "lost")
    return [
        row(f"agents.storm_{agents}.lost", [lost], [], "sessions"),
        row(f"agents.storm_{agents}.seconds", [taken], [], "s"),
        row(f"agents.storm_{agents}.cpu_ms_per_session", [cpu / agents * 1e3], [], "ms"),
    ]


def _told(hollows: Sequence[Hollows], what: str) -> float:
    return sum(each.told[what] for each in hollows)


@contextmanager
def _fleet(nodes: int, *, endpoint: str = "") -> Iterator[Fleet]:
    allow_files()
    with (
        tempfile.TemporaryDirectory(dir=_scratch()) as folder,
        Fleet(Path(folder).absolute(), nodes, endpoint=endpoint) as fleet,
    ):
        yield fleet


def _scratch() -> Path:
    SCRATCH.mkdir(exist_ok=True)
    return SCRATCH


def _all_there(hollows: Hollows, count: int) -> None:
    until(lambda: hollows.told["connected"] == count, seconds=ARRIVAL_S, what=f"{count} agents are connected")


def _shoal(fleet: Fleet, *argv: str) -> None:
    argv = (str(PROJECT / ".venv/bin/shoal"), "--host", f"unix://{fleet.manager.socket}", *argv)
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)


def _running(control: ControlServiceStub, service: str) -> int:
    return int(control.GetService(wire.GetServiceRequest(service=service)).service.running)


def _tasks(control: ControlServiceStub) -> int:
    return len(control.ListTasks(wire.ListTasksRequest()).tasks)


def _dead(control: ControlServiceStub, nodes: Sequence[str]) -> bool:
    found = (control.GetNode(wire.GetNodeRequest(node=id)).node.node for id in nodes)
    return all(each.status.state == NODE_STATE_DOWN for each in found)


def _main(which: str, agents: int) -> None:
    measures: dict[str, Callable[[int], list[Row]]] = {
        "tasks": tasks,
        "tasks.etcd": tasks_through_etcd,
        "idle": idle,
        "storm": storm,
    }
    for each in measures[which](agents):
        print(f"{each['name']:40} {each['ours']:12.3f} {each['unit']}")


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]))
