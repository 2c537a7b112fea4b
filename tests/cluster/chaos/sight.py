"""Sight: the cluster as its managers and its hosts show it at one moment, and what is wrong in it. `look` asks,
the rest is pure."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from shoal.errors import Conflict, ShoalError
from shoal.rpc import dial, translated
from shoal.v1.control_pb2 import (
    CreateNetworkRequest,
    ListNodesRequest,
    ListServicesRequest,
    ListTasksRequest,
    RemoveNetworkRequest,
    TaskView,
)
from shoal.v1.control_pb2_grpc import ControlServiceStub
from shoal.v1.engine_pb2 import ListContainersRequest
from shoal.v1.engine_pb2_grpc import ContainerServiceStub
from shoal.v1.types_pb2 import CONTAINER_STATE_RUNNING, NODE_STATE_READY, TASK_STATE_RUNNING, NetworkSpec
from tests.cluster.chaos.ledger import Wish
from tests.cluster.chaos.rack import Rack

ASK_S = 5.0
MESH_PORT = 8080
_PROBE = "probe"


@dataclass
class Sight:
    """`containers` are pids by host and by name, of those that run; `answering` the hosts whose mesh answers."""

    nodes: dict[str, int] = field(default_factory=dict)
    services: dict[str, Wish] = field(default_factory=dict)
    tasks: list[TaskView] = field(default_factory=list)
    containers: dict[str, dict[str, int]] = field(default_factory=dict)
    answering: set[str] = field(default_factory=set)


async def look(rack: Rack, manager: str) -> Sight:
    """Raises ShoalError or OSError where somebody does not answer, or `manager` takes no write."""
    sight = Sight()
    async with dial(rack.socket(manager)) as channel:
        control = ControlServiceStub(channel)
        with translated():
            await _write(control)
            for view in (await control.ListNodes(ListNodesRequest(), timeout=ASK_S)).nodes:
                sight.nodes[view.node.description.hostname] = view.node.status.state
            for each in (await control.ListServices(ListServicesRequest(), timeout=ASK_S)).services:
                spec = each.service.spec
                sight.services[spec.name] = Wish(int(spec.labels.get("revision", "0")), spec.replicas)
            sight.tasks = list((await control.ListTasks(ListTasksRequest(), timeout=ASK_S)).tasks)
    found = await asyncio.gather(*(_containers(rack, host) for host in rack.hosts))
    sight.containers = dict(zip(rack.hosts, found, strict=True))
    reached = await asyncio.gather(*(answers(rack.lab.addresses[host]) for host in rack.hosts))
    sight.answering = {host for host, there in zip(rack.hosts, reached, strict=True) if there}
    return sight


async def _write(control: Any) -> None:
    """What a manager shows may be all that it knows: one whose store is gone from it shows that as well."""
    with contextlib.suppress(Conflict), translated():  # it is there since a write that nobody acknowledged
        await control.CreateNetwork(
            CreateNetworkRequest(spec=NetworkSpec(name=_PROBE, driver="overlay")), timeout=ASK_S
        )
    await control.RemoveNetwork(RemoveNetworkRequest(network=_PROBE), timeout=ASK_S)


async def answers(address: str, *, within_s: float = ASK_S) -> bool:
    """Whether the mesh at `address` leads to a task that answers."""
    try:
        async with asyncio.timeout(within_s):
            reader, writer = await asyncio.open_connection(address, MESH_PORT)
            try:
                writer.write(b"GET / HTTP/1.0\r\n\r\n")
                return b"200 OK" in await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False


def unsettled(rack: Rack, sight: Sight) -> list[str]:
    """What is not yet, or no longer, as it should be once nothing is under way."""
    wrong = [f"node {host} is not ready ({state})" for host, state in sight.nodes.items() if state != NODE_STATE_READY]
    if len(sight.nodes) != len(rack.hosts):
        wrong.append(f"{len(sight.nodes)} nodes of {len(rack.hosts)}")
    for name, wish in sight.services.items():
        states = [each.task.status.state for each in wanted(sight.tasks) if each.service_name == name]
        if len(states) != wish.replicas or set(states) - {TASK_STATE_RUNNING}:
            wrong.append(f"service {name} wants {wish.replicas} tasks and has {states}")
    wrong += [f"host {host} does not answer at port {MESH_PORT}" for host in rack.hosts if host not in sight.answering]
    return wrong + doubled(sight.tasks) + _strangers(sight)


def doubled(tasks: Iterable[TaskView]) -> list[str]:
    """Slots with more than one task that is wanted, runs and stays, or with more than one beside it, which departs from
    a drained node."""
    running = [each for each in wanted(tasks) if each.task.status.state == TASK_STATE_RUNNING]
    staying = (each for each in running if not each.task.depart_by_ns)
    return [
        *(f"slot {slot} has {count} running tasks" for slot, count in _by_slot(staying) if count > 1),
        *(
            f"slot {slot} has {count} running tasks, with those that depart"
            for slot, count in _by_slot(running)
            if count > 2
        ),
    ]


def _by_slot(tasks: Iterable[TaskView]) -> Iterator[tuple[str, int]]:
    # By id: the tasks of services that were removed a moment ago have none's name.
    counts = Counter((each.task.service_id, each.service_name, each.task.slot) for each in tasks)
    return ((f"{name}.{slot}", count) for (_, name, slot), count in counts.items())


def wanted(tasks: Iterable[TaskView]) -> list[TaskView]:
    """Those that should run and were not ended."""
    return [
        each
        for each in tasks
        if each.task.desired <= TASK_STATE_RUNNING and each.task.status.state <= TASK_STATE_RUNNING
    ]


def _strangers(sight: Sight) -> list[str]:
    """Containers of tasks that nobody wants, and tasks said to run whose container does not."""
    should = {(each.node_name, each.task.meta.id) for each in wanted(sight.tasks)}
    runs = {(host, name.rsplit(".", 1)[-1]) for host, each in sight.containers.items() for name in each if "." in name}
    return [f"task {id} runs on {host} and should not" for host, id in sorted(runs - should)] + [
        f"task {id} should run on {host} and does not" for host, id in sorted(should - runs)
    ]


async def _containers(rack: Rack, host: str) -> dict[str, int]:
    async with dial(rack.socket(host)) as channel:
        with translated():
            answer = await ContainerServiceStub(channel).ListContainers(ListContainersRequest(), timeout=ASK_S)
    return {each.name: each.status.pid for each in answer.containers if each.status.state == CONTAINER_STATE_RUNNING}


NO_ANSWER = (ShoalError, OSError)
