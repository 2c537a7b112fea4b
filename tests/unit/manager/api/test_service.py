"""Calls on services: what is completed, pinned and refused, and that two who write at once are told apart."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from manager.dispatcher.inventory import Held
from shoal.codec import to_wire
from shoal.errors import Conflict, InvalidArgument, NotFound, ShoalError
from shoal.model.base import Meta
from shoal.model.network import Network, NetworkScope, NetworkSpec
from shoal.model.node import Node, NodeDescription
from shoal.model.task import Task, TaskState, TaskStatus
from shoal.v1 import control_pb2 as wire
from shoal.v1 import types_pb2 as t
from shoal.v1.engine_pb2 import Filter

DIGEST = "sha256:" + "0f" * 32


def spec(name: str = "web", **fields: Any) -> t.ServiceSpec:
    fields = {"mode": t.SERVICE_MODE_REPLICATED, "replicas": 2, "endpoint_mode": t.ENDPOINT_MODE_VIP, **fields}
    task = fields.pop("task", t.TaskSpec(container=t.ContainerSpec(image="web:1")))
    return t.ServiceSpec(name=name, task=task, **fields)


async def create(manager: Any, wanted: t.ServiceSpec) -> t.Service:
    return (await manager.control.CreateService(wire.CreateServiceRequest(spec=wanted), None)).service


async def test_defaults_are_filled_in_and_a_name_is_made_up(manager: Any) -> None:
    answer = await manager.control.CreateService(wire.CreateServiceRequest(spec=spec(name="")), None)
    made = answer.service
    assert "_" in made.spec.name
    assert made.spec.task.restart.condition == t.RESTART_CONDITION_ANY
    assert made.spec.task.restart.delay_ns == 5_000_000_000
    assert (made.spec.update.parallelism, made.task_version) == (1, 1)
    assert len(answer.warnings) == 1
    assert "web:1" in answer.warnings[0]


async def test_the_image_is_pinned_to_what_the_cluster_holds(manager: Any) -> None:
    manager.inventory.put("w1", [Held("docker.io/library/web:1", DIGEST)])
    made = await create(manager, spec())
    assert made.image_digest == DIGEST
    # A tag that moves on does not change what a scaled service runs.
    manager.inventory.put("w1", [Held("docker.io/library/web:1", "sha256:" + "1e" * 32)])
    made.spec.replicas = 7
    request = wire.UpdateServiceRequest(service="web", version=made.meta.version, spec=made.spec)
    scaled = (await manager.control.UpdateService(request, None)).service
    assert (scaled.image_digest, scaled.task_version, scaled.HasField("outgoing")) == (DIGEST, 1, False)


async def test_a_changed_task_makes_a_new_version_and_keeps_the_last_one(manager: Any) -> None:
    made = await create(manager, spec())
    changed = spec(task=t.TaskSpec(container=t.ContainerSpec(image="web:2")))
    request = wire.UpdateServiceRequest(service=made.meta.id, version=made.meta.version, spec=changed)
    updated = (await manager.control.UpdateService(request, None)).service
    assert (updated.task_version, updated.outgoing.task.container.image) == (2, "web:1")


async def test_the_spec_before_is_kept_for_a_rollback_whatever_changed(manager: Any) -> None:
    service = await create(manager, spec(replicas=2))
    for wanted in (
        spec(replicas=2, task=t.TaskSpec(container=t.ContainerSpec(image="web:2"))),
        spec(replicas=5, task=t.TaskSpec(container=t.ContainerSpec(image="web:2"))),
    ):
        request = wire.UpdateServiceRequest(service="web", version=service.meta.version, spec=wanted)
        service = (await manager.control.UpdateService(request, None)).service
    assert (service.previous.replicas, service.previous.task.container.image) == (2, "web:2")
    assert service.outgoing.task.container.image == "web:1"


async def test_an_update_of_what_somebody_else_changed_is_refused(manager: Any) -> None:
    made = await create(manager, spec())
    request = wire.UpdateServiceRequest(service="web", version=made.meta.version, spec=spec(replicas=3))
    await manager.control.UpdateService(request, None)
    with pytest.raises(Conflict, match="update out of sequence"):
        await manager.control.UpdateService(request, None)


async def test_what_the_loops_write_is_not_in_the_way_of_an_update(manager: Any) -> None:
    made = await create(manager, spec())
    service = manager.mirror.services[made.meta.id]
    from manager.control.action import change, commit, touched

    done = await commit(manager.store, [change(touched(service, 5), "ports")])
    await manager.mirror.reached(done.revision)
    request = wire.UpdateServiceRequest(service="web", version=made.meta.version, spec=spec(replicas=3))
    assert (await manager.control.UpdateService(request, None)).service.spec.replicas == 3


async def test_of_two_who_create_one_name_at_once_one_is_told(manager: Any) -> None:
    done = await asyncio.gather(*(create(manager, spec()) for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(each, t.Service) for each in done) == 1
    assert all("already exists" in str(each) for each in done if isinstance(each, ShoalError))
    await manager.control.RemoveService(wire.RemoveServiceRequest(service="web"), None)
    await create(manager, spec())


def container(**fields: Any) -> t.TaskSpec:
    return t.TaskSpec(container=t.ContainerSpec(image="web:1", **fields))


PORT = t.Port(protocol=t.PORT_PROTOCOL_TCP, target=80, published=8080, mode=t.PUBLISH_MODE_INGRESS)


@pytest.mark.parametrize(
    ("wanted", "kind", "words"),
    [
        (spec(name="a.b"), InvalidArgument, "Invalid service name"),
        (spec(task=t.TaskSpec()), InvalidArgument, "image reference must be provided"),
        (spec(task=t.TaskSpec(container=t.ContainerSpec(image="A:1"))), InvalidArgument, "must be lowercase"),
        (spec(replicas=1_000_000), InvalidArgument, "replicas are above"),
        (spec(task=container(env=["=x"])), InvalidArgument, "invalid environment variable"),
        (spec(task=container(env=["A={{.Nope}}"])), InvalidArgument, "unknown placeholder"),
        (
            spec(task=container(mounts=[t.Mount(type=t.MOUNT_TYPE_BIND, source="/a", target="b")])),
            InvalidArgument,
            "invalid mount target",
        ),
        (
            spec(task=container(mounts=[t.Mount(type=t.MOUNT_TYPE_VOLUME, target="/b")] * 2)),
            InvalidArgument,
            "Duplicate mount point: /b",
        ),
        (spec(ports=[PORT, PORT]), InvalidArgument, "duplicate published port 8080/tcp"),
        (spec(ports=[t.Port(protocol=1, target=0, mode=1)]), InvalidArgument, "invalid port 0:0"),
        (
            spec(ports=[PORT], endpoint_mode=t.ENDPOINT_MODE_DNSRR),
            InvalidArgument,
            "ingress mode can't be used with dnsrr",
        ),
        (
            spec(task=t.TaskSpec(container=container().container, placement=t.Placement(constraints=["node.x=1"]))),
            InvalidArgument,
            "node.x",
        ),
        (
            spec(task=t.TaskSpec(container=container().container, limits=t.Resources(memory_bytes=5))),
            InvalidArgument,
            "must be at least 4MiB",
        ),
        (
            spec(task=t.TaskSpec(container=container().container, networks=[t.NetworkAttachment(network="none-such")])),
            NotFound,
            "network none-such not found",
        ),
    ],
)
async def test_what_no_service_can_be_is_refused(
    manager: Any, wanted: t.ServiceSpec, kind: type[ShoalError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        await create(manager, wanted)
    assert manager.mirror.services == {}


async def test_a_published_port_belongs_to_one_service(manager: Any) -> None:
    await create(manager, spec(ports=[PORT]))
    with pytest.raises(Conflict, match="port '8080' is already in use by service 'web'"):
        await create(manager, spec("other", ports=[PORT]))


async def test_lists_count_what_runs_and_filter(manager: Any) -> None:
    made = await create(manager, spec())
    await create(manager, spec("other", labels={"tier": "back"}))
    status = TaskStatus(state=TaskState.RUNNING)
    await manager.add(Task(Meta("t1", created_at_ns=1), made.meta.id, 1, 1, "w1", TaskState.RUNNING, status))
    views = (await manager.control.ListServices(wire.ListServicesRequest(), None)).services
    assert [(each.service.spec.name, each.running, each.desired) for each in views] == [("other", 0, 2), ("web", 1, 2)]
    request = wire.ListServicesRequest(filters=[Filter(key="label", value="tier=back")])
    assert [each.service.spec.name for each in (await manager.control.ListServices(request, None)).services] == [
        "other"
    ]
    with pytest.raises(InvalidArgument, match="invalid filter 'colour'"):
        await manager.control.ListServices(wire.ListServicesRequest(filters=[Filter(key="colour", value="x")]), None)


async def test_tasks_are_found_by_service_node_state_and_name(manager: Any) -> None:
    made = await create(manager, spec())
    for number, desired in enumerate((TaskState.RUNNING, TaskState.SHUTDOWN), 1):
        status = TaskStatus(state=TaskState.ASSIGNED)
        await manager.add(Task(Meta(f"t{number}", created_at_ns=number), made.meta.id, 1, 1, "w1", desired, status))

    async def found(**filters: str) -> list[str]:
        wanted = [Filter(key=key.replace("_", "-"), value=value) for key, value in filters.items()]
        answer = await manager.control.ListTasks(wire.ListTasksRequest(filters=wanted), None)
        return [each.task.meta.id for each in answer.tasks]

    assert await found(service="web") == ["t2", "t1"]
    assert await found(service="web", desired_state="running") == ["t1"]
    assert await found(node="host-w1", desired_state="shutdown") == ["t2"]
    assert await found(node="self") == []
    assert (await manager.control.GetTask(wire.GetTaskRequest(task="web.1"), None)).task.task.meta.id == "t2"
    with pytest.raises(NotFound, match="No such service: nothing"):
        await found(service="nothing")


async def test_a_watch_tells_every_change_and_ends_with_the_service(manager: Any) -> None:
    made = await create(manager, spec())
    watch = manager.control.WatchService(wire.WatchServiceRequest(service="web"), None)
    assert len((await anext(watch)).tasks) == 0
    following = asyncio.ensure_future(anext(watch))
    await manager.add(Task(Meta("t1", created_at_ns=1), made.meta.id, 1, 1))
    assert [each.meta.id for each in (await following).tasks] == ["t1"]
    following = asyncio.ensure_future(anext(watch))
    await manager.control.RemoveService(wire.RemoveServiceRequest(service="web"), None)
    with pytest.raises(NotFound, match="No such service"):
        await following


async def test_a_network_in_use_is_not_removed(manager: Any) -> None:
    network = Network(Meta("n1"), NetworkSpec(name="back", driver="overlay"), NetworkScope.SWARM, "10.3.0.0/16")
    await manager.add(network)
    networked = t.TaskSpec(container=container().container, networks=[t.NetworkAttachment(network="back")])
    await create(manager, spec(task=networked))
    with pytest.raises(Conflict, match="in use by service web"):
        await manager.control.RemoveNetwork(wire.RemoveNetworkRequest(network="back"), None)
    overlapping = to_wire(NetworkSpec(name="more", driver="overlay", subnet="10.3.4.0/24"), t.NetworkSpec)
    with pytest.raises(Conflict, match="overlaps with that of network back"):
        await manager.control.CreateNetwork(wire.CreateNetworkRequest(spec=overlapping), None)
    await manager.add(Node(Meta("h1"), description=NodeDescription(hostname="h1", address="10.4.0.9")))
    covering = to_wire(NetworkSpec(name="more", driver="overlay", subnet="10.4.0.0/16"), t.NetworkSpec)
    with pytest.raises(Conflict, match="has the address of node h1"):
        await manager.control.CreateNetwork(wire.CreateNetworkRequest(spec=covering), None)
    await manager.control.RemoveService(wire.RemoveServiceRequest(service="web"), None)
    await manager.control.RemoveNetwork(wire.RemoveNetworkRequest(network="back"), None)
    assert manager.mirror.networks == {}
