"""A leader that dies: three managers on an etcd of three members, and how soon the cluster writes and decides again.

The leader's manager and a member of etcd beside it are killed at once, as by their host's death. `first_write` is the
first write that another manager acknowledges, `first_decision` the first that follows from it: a new leader has made
a task of the new service. `python -m tests.bench.bench_failover` measures these two alone.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc

from shoal.v1 import control_pb2 as wire
from shoal.v1 import types_pb2
from shoal.v1.control_pb2_grpc import ControlServiceStub
from tests import etcd
from tests.bench.fleet import ManagerProcess, founded, until
from tests.bench.row import Row, row

SCRATCH = Path("build")  # /tmp may be memory, which takes no time to sync
MANAGERS = 3
ALL_SERVE = ["Leader", "Reachable", "Reachable"]
ROUNDS = 5
AGAIN_S = 60.0
ATTEMPT_S = 1.0
WRITE_S = 10.0


def rows() -> list[Row]:
    if shutil.which("etcd") is None:
        return []
    with _cluster() as (managers, members):
        taken = [_without_leader(managers, members, f"after{number}") for number in range(ROUNDS)]
    return [
        row("failover.first_write_s", [write for write, _ in taken], [], "s"),
        row("failover.first_decision_s", [decision for _, decision in taken], [], "s"),
    ]


def _without_leader(
    managers: Sequence[ManagerProcess], members: Sequence[etcd.Member], service: str
) -> tuple[float, float]:
    """How long both take; then all are there again."""
    controls = [manager.control() for manager in managers]
    until(lambda: _all_serve(controls), seconds=AGAIN_S, what="all managers serve")
    place = _leader(controls)
    left = [control for each, control in enumerate(controls) if each != place]
    start = time.monotonic()
    managers[place].kill()
    members[place].kill()
    _write(left, service)
    written = time.monotonic() - start
    until(lambda: _decided(left, service), seconds=AGAIN_S, what="a decision", every_s=0.01)
    decided = time.monotonic() - start
    members[place].start(members, existing=True)
    members[place].ready()
    managers[place].start()
    return written, decided


@contextmanager
def _cluster() -> Iterator[tuple[list[ManagerProcess], list[etcd.Member]]]:
    """Managers, each of which calls the member beside it first."""
    SCRATCH.mkdir(exist_ok=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=SCRATCH))).absolute()
        members = stack.enter_context(etcd.running(folder, MANAGERS))
        addresses = [member.client for member in members]
        folders = [folder / f"manager{number}" for number in range(MANAGERS)]
        asyncio.run(founded(folders, 0, addresses))
        managers = [
            ManagerProcess(each, [*addresses[place:], *addresses[:place]]) for place, each in enumerate(folders)
        ]
        for manager in managers:
            stack.callback(manager.kill)
            manager.start()
        yield managers, members


def _all_serve(controls: Sequence[ControlServiceStub]) -> bool:
    """As each manager sees it, and all of them see the same leader."""
    try:
        seen = [control.ListNodes(wire.ListNodesRequest(), timeout=ATTEMPT_S).nodes for control in controls]
    except grpc.RpcError:
        return False
    statuses = {tuple(sorted((each.node.meta.id, each.manager_status) for each in nodes)) for nodes in seen}
    return len(statuses) == 1 and sorted(status for _, status in statuses.pop()) == ALL_SERVE


def _leader(controls: Sequence[ControlServiceStub]) -> int:
    """The place of the manager that leads."""
    own = [control.GetNode(wire.GetNodeRequest(node="self")).node.manager_status for control in controls]
    return own.index("Leader")


def _write(controls: Sequence[ControlServiceStub], name: str) -> None:
    """Make a service by one of these managers, the next one where one refuses; each try has its own name, as the one
    before may have been done."""
    container = types_pb2.ContainerSpec(image="hollow:1")
    deadline = time.monotonic() + AGAIN_S
    for number, control in enumerate(itertools.cycle(controls)):
        task = types_pb2.TaskSpec(container=container)
        spec = types_pb2.ServiceSpec(name=f"{name}-{number}", task=task, replicas=1)
        try:
            control.CreateService(wire.CreateServiceRequest(spec=spec), timeout=WRITE_S)
            return
        except grpc.RpcError as error:
            if time.monotonic() > deadline:
                raise AssertionError(f"no write within {AGAIN_S} s") from error
            time.sleep(0.01)


def _decided(controls: Sequence[ControlServiceStub], name: str) -> bool:
    """Whether there is a task of the new service."""
    for control in controls:
        try:
            tasks = control.ListTasks(wire.ListTasksRequest(), timeout=ATTEMPT_S).tasks
        except grpc.RpcError:
            continue
        if any(task.service_name.startswith(name) for task in tasks):
            return True
    return False


if __name__ == "__main__":
    for each in rows():
        print(f"{each['name']:40} {each['ours']:12.3f} {each['unit']}")
