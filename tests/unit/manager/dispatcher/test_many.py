"""The dispatcher and the loop with a dozen hollow agents: a service runs everywhere, and outlives a new manager."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from manager.control.action import change, commit, delete, touched
from manager.control.loop import Loop
from manager.control.tenure import Tenure
from manager.deciders import DECIDERS
from manager.dispatcher.rpc import DispatcherService
from shoal.model.base import Meta
from shoal.model.container import ContainerSpec
from shoal.model.node import NodeState, Role
from shoal.model.service import Service, ServiceSpec, TaskSpec
from shoal.model.task import TaskState
from shoal.rpc import new_server
from shoal.tls import server_credentials
from shoal.v1 import dispatcher_pb2_grpc
from tests.bench.hollow import Hollow
from tests.unit.manager.conftest import node
from tests.unit.manager.test_daemon import free_port

NODES = 12
DAY_NS = 24 * 3600 * 10**9
Serving = Callable[[], AbstractAsyncContextManager[None]]


def identity(manager: Any, node_id: str, role: Role = Role.WORKER) -> Any:
    return manager.authority.new_identity(
        node_id=node_id, cluster_id="c1", role=role, life_ns=DAY_NS, now_ns=manager.clock.now_ns()
    )


@pytest.fixture
def address() -> str:
    return f"127.0.0.1:{free_port()}"


@pytest.fixture
def serving(manager: Any, address: str) -> Serving:
    """Serves and decides for as long as a block lasts."""
    own = identity(manager, "m1", Role.MANAGER)

    @asynccontextmanager
    async def serve() -> AsyncIterator[None]:
        await manager.tenure.end()  # agents are to be told of this address alone
        tenure = Tenure(manager.store, node_id="m1", address=address, clock=manager.clock)
        service = DispatcherService(
            store=manager.store,
            mirror=manager.mirror,
            clock=manager.clock,
            inventory=manager.inventory,
            location=manager.location,
            channels=manager.channels,
            own_id="m1",
            tenure=tenure,
            leads=lambda: True,
        )
        server = new_server()
        dispatcher_pb2_grpc.add_DispatcherServiceServicer_to_server(service, server)
        server.add_secure_port(address, server_credentials(lambda: own, require_client=True))
        await server.start()
        serving = asyncio.create_task(tenure.run())
        await tenure.begun()
        loop = Loop(manager.store, manager.mirror, DECIDERS, clock=manager.clock)
        running = [serving, asyncio.create_task(service.run()), asyncio.create_task(loop.run())]
        try:
            yield
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            await tenure.end()
            await server.stop(None)

    return serve


@pytest.fixture
async def hollow(manager: Any, address: str) -> AsyncIterator[Hollow]:
    """Agents of a dozen nodes, who try until a manager serves."""
    names = [f"h{number:02}" for number in range(NODES)]
    await manager.add(*(node(name, state=NodeState.DOWN) for name in names))
    agents = Hollow([identity(manager, name) for name in names], [address])
    async with agents.running():
        yield agents


async def until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.01)


def states(manager: Any) -> Counter[NodeState]:
    return Counter(each.status.state for id, each in manager.mirror.nodes.items() if id.startswith("h"))


def service(replicas: int) -> Service:
    task = TaskSpec(container=ContainerSpec(image="hollow:1"))
    return Service(Meta("s1", created_at_ns=1), ServiceSpec(name="many", replicas=replicas, task=task), 1)


async def scale(manager: Any, replicas: int) -> None:
    now = manager.mirror.services["s1"]
    await commit(manager.store, [change(touched(now, 2, spec=service(replicas).spec), "test")])


async def test_tasks_run_everywhere_follow_a_scale_and_end(manager: Any, serving: Serving, hollow: Hollow) -> None:
    async with serving():
        await until(lambda: states(manager)[NodeState.READY] == NODES)
        await manager.add(service(10 * NODES))
        await until(lambda: hollow.told()["running"] == 10 * NODES)
        running = TaskState.RUNNING
        await until(lambda: Counter(each.status.state for each in manager.mirror.tasks.values())[running] == 10 * NODES)
        await scale(manager, NODES)
        await until(lambda: hollow.told()["running"] == NODES)
        await commit(manager.store, [delete(manager.mirror.services["s1"], "test")])
        await until(lambda: not manager.mirror.tasks)
        assert hollow.told()["running"] == 0


async def test_a_manager_that_restarts_calls_nobody_dead_and_moves_nothing(
    manager: Any, serving: Serving, hollow: Hollow
) -> None:
    async with serving():
        await until(lambda: states(manager)[NodeState.READY] == NODES)
        await manager.add(service(3 * NODES))
        await until(lambda: hollow.told()["running"] == 3 * NODES)
    placed = {id: task.node_id for id, task in manager.mirror.tasks.items()}
    with manager.mirror.changes.subscribe() as events:
        async with serving():
            await until(lambda: hollow.told()["lost"] == hollow.told()["connected"] == NODES)
            await until(lambda: states(manager)[NodeState.READY] == NODES)
            seen = [event.new.status.state for event in events.drain() if event.kind == "node" and event.new]
    assert NodeState.DOWN not in seen
    assert {id: task.node_id for id, task in manager.mirror.tasks.items()} == placed
