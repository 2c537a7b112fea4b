"""Cycles of create and remove, several at once, each through one of the managers; `leak` says what they may leave."""

from __future__ import annotations

import asyncio
from typing import Any

from shoal.errors import Conflict, NotFound, ShoalError, Unavailable
from shoal.rpc import dial, translated
from shoal.v1 import control_pb2 as wire
from shoal.v1.control_pb2_grpc import ControlServiceStub
from shoal.v1.engine_pb2 import Filter
from shoal.v1.types_pb2 import (
    ENDPOINT_MODE_VIP,
    MOUNT_TYPE_VOLUME,
    PORT_PROTOCOL_TCP,
    SERVICE_MODE_REPLICATED,
    TASK_STATE_FAILED,
    TASK_STATE_REJECTED,
    TASK_STATE_RUNNING,
    ContainerSpec,
    Mount,
    NetworkAttachment,
    NetworkSpec,
    Port,
    ServiceSpec,
    TaskSpec,
)
from tests.cluster.chaos import leak
from tests.cluster.chaos.rack import Rack

# What is made once and stays is made by these.
_WARM = 3
_AT_ONCE = 8
_LOOK_S = 0.3
# On a machine that is busy with much else; nobody waits for it elsewhere.
_STEP_S = 300.0


def run(rack: Rack, cycles: int) -> list[str]:
    """What `cycles` cycles leave behind; empty when all is as it was."""
    # Its tasks may move when the machine is too busy to hear a node: then this is about something else.
    rack.lab.shoal(rack.managers[0], "service", "scale", "-d", "steady=0")
    asyncio.run(_cycles(rack, range(_WARM)))
    before, held = leak.inventory(rack), leak.held_by(rack)
    asyncio.run(_cycles(rack, range(_WARM, _WARM + cycles)))
    return leak.nothing_grew(rack, before, held)


async def _cycles(rack: Rack, numbers: range) -> None:
    turns = asyncio.Semaphore(_AT_ONCE)

    async def take(number: int) -> None:
        async with turns:
            await _cycle(rack, number)

    async with asyncio.TaskGroup() as group:
        for number in numbers:
            group.create_task(take(number))


async def _cycle(rack: Rack, number: int) -> None:
    """A service on a network of its own with a port and a volume, and a container by hand; then none of them."""
    spec = _spec(f"cycle{number}", f"net{number}", replicas=len(rack.hosts), port=20000 + number % 10000)
    async with dial(rack.socket(rack.managers[number % len(rack.managers)])) as channel:
        control: Any = ControlServiceStub(channel)
        network = NetworkSpec(name=f"net{number}", driver="overlay")
        await _ask(control.CreateNetwork, wire.CreateNetworkRequest(spec=network), done=Conflict)
        await _ask(control.CreateService, wire.CreateServiceRequest(spec=spec), done=Conflict)
        await _running(control, spec)
        await asyncio.to_thread(_by_hand, rack, rack.hosts[number % len(rack.hosts)])
        await _ask(control.RemoveService, wire.RemoveServiceRequest(service=spec.name), done=NotFound)
        await _removed(control, network.name)


async def _ask(call: Any, request: Any, *, done: type[ShoalError] | tuple[()] = ()) -> Any:
    """The answer; asked again where a busy store or its next leader has none in time. The change may then have been
    made by a call before: `done` says so, and is no failure after that, and only then. None in that case."""
    doubt = False
    async with asyncio.timeout(_STEP_S):
        while True:
            try:
                with translated():
                    return await call(request, timeout=_STEP_S)
            except Unavailable:
                doubt = True
                await asyncio.sleep(_LOOK_S)
            except done:
                if not doubt:
                    raise
                return None


def _spec(name: str, network: str, *, replicas: int, port: int) -> ServiceSpec:
    # At once: what runs as PID 1 heeds no SIGTERM, and ten seconds would pass.
    container = ContainerSpec(image="web:1", mounts=[Mount(type=MOUNT_TYPE_VOLUME, target="/v")], stop_signal="SIGKILL")
    return ServiceSpec(
        name=name,
        mode=SERVICE_MODE_REPLICATED,
        replicas=replicas,
        task=TaskSpec(container=container, networks=[NetworkAttachment(network=network)]),
        endpoint_mode=ENDPOINT_MODE_VIP,
        ports=[Port(protocol=PORT_PROTOCOL_TCP, target=80, published=port)],
    )


async def _running(control: Any, spec: ServiceSpec) -> None:
    """Return once all of its tasks run; none may fail on the way: one that is sent before its host has its part of the
    new network waits for it."""
    request = wire.ListTasksRequest(filters=[Filter(key="service", value=spec.name)])
    async with asyncio.timeout(_STEP_S):
        while True:
            tasks = (await _ask(control.ListTasks, request)).tasks
            ended = {TASK_STATE_FAILED, TASK_STATE_REJECTED}
            failed = [each.task.status for each in tasks if each.task.status.state in ended]
            assert not failed, failed
            if sum(each.task.status.state == TASK_STATE_RUNNING for each in tasks) == spec.replicas:
                return
            await asyncio.sleep(_LOOK_S)


def _by_hand(rack: Rack, host: str) -> None:
    rack.lab.shoal(host, "run", "--rm", "-v", "/v", "-p", "0:80", "web:1", "true")


async def _removed(control: Any, network: str) -> None:
    """It is in use as long as its service has tasks."""
    async with asyncio.timeout(_STEP_S):
        while True:
            try:
                await _ask(control.RemoveNetwork, wire.RemoveNetworkRequest(network=network), done=NotFound)
            except Conflict:
                await asyncio.sleep(_LOOK_S)
            else:
                return
