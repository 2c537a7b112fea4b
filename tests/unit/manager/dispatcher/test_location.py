"""Of many nodes that lack an image one is sent to the registry, and it alone hears the password."""

from __future__ import annotations

from typing import Any

import pytest

from manager.control.action import commit, create
from manager.dispatcher.errand import LAPSE_S, Errands
from manager.dispatcher.inventory import Held
from shoal.clock import ManualClock
from shoal.codec import to_wire
from shoal.errors import InvalidArgument, PermissionDenied, Unavailable
from shoal.model.base import Meta
from shoal.model.container import ContainerSpec
from shoal.model.service import ServiceSpec, TaskSpec
from shoal.model.task import Task, TaskState, TaskStatus
from shoal.v1 import control_pb2, types_pb2
from shoal.v1 import dispatcher_pb2 as wire
from shoal.v1.types_pb2 import RegistryCredentials
from tests.unit.manager.conftest import node

IMAGE = "reg.example/web:1"
DIGEST = "sha256:" + "1" * 64


async def served(manager: Any, **fields: Any) -> str:
    """The id of a service with a task on each of w1, w2, w3."""
    await manager.add(node("w2"), node("w3"))
    spec = ServiceSpec(name="web", task=TaskSpec(container=ContainerSpec(image=IMAGE)))
    request = control_pb2.CreateServiceRequest(spec=to_wire(spec, types_pb2.ServiceSpec), **fields)
    made = (await manager.control.CreateService(request, None)).service
    for each in ("w1", "w2", "w3"):
        status = TaskStatus(TaskState.PREPARING)
        await manager.add(Task(Meta(f"t{each}"), made.meta.id, slot=1, node_id=each, status=status))
    for each in ("m1", "w1", "w2", "w3"):
        manager.inventory.put(each, [])
    return str(made.meta.id)


def asking(service_id: str, **fields: Any) -> wire.LocateImageRequest:
    return wire.LocateImageRequest(reference=IMAGE, manifest_digest=DIGEST, service_id=service_id, **fields)


async def test_one_is_sent_and_the_others_wait_for_it(manager: Any) -> None:
    me = RegistryCredentials(username="me", password="secret")
    service_id = await served(manager, image_digest=DIGEST, credentials=me)
    assert manager.mirror.all("service")[service_id].image_digest == DIGEST
    answer = manager.location.answer
    first = await answer("w1", asking(service_id))
    assert (first.bring, first.credentials) == (True, me)
    for each in ("w2", "w3"):
        other = await answer(each, asking(service_id))
        assert (other.coming, other.bring, other.credentials.password) == (True, False, "")
    assert (await answer("w1", asking(service_id))).bring  # on the way still
    await answer("w1", asking(service_id, failed=True))
    assert (await answer("w3", asking(service_id))).credentials == me
    manager.inventory.put("w3", [Held("", DIGEST)])
    found = await answer("w2", asking(service_id))
    assert [each.node_id for each in found.sources] == ["w3"]
    assert not found.credentials.password


async def test_a_node_without_a_task_of_the_service_hears_nothing(manager: Any) -> None:
    service_id = await served(manager, credentials=RegistryCredentials(username="me", password="secret"))
    with pytest.raises(PermissionDenied, match="no task of service"):
        await manager.location.answer("m1", asking(service_id))
    bare = await manager.location.answer("w1", wire.LocateImageRequest(reference=IMAGE))
    assert bare == wire.LocateImageResponse()


async def test_a_node_is_sent_even_while_not_all_have_said_what_they_hold(manager: Any) -> None:
    service_id = await served(manager)
    manager.inventory.drop("w3")
    first = await manager.location.answer("w1", asking(service_id))
    assert first.bring and "1 of 4 nodes have not said" in first.doubt
    with pytest.raises(Unavailable, match="1 of 4 nodes"):
        await manager.location.answer("w1", wire.LocateImageRequest(reference=IMAGE, manifest_digest=DIGEST))


async def test_credentials_are_sealed_outlive_updates_and_go_with_the_service(manager: Any) -> None:
    service_id = await served(manager, credentials=RegistryCredentials(username="me", password="secret"))
    (record,) = (await manager.store.read(f"/login/{service_id}")).records
    assert b"secret" not in record.value
    assert "secret" not in str(await manager.control.GetService(control_pb2.GetServiceRequest(service="web"), None))
    spec = (await manager.control.GetService(control_pb2.GetServiceRequest(service="web"), None)).service.service.spec
    spec.replicas = 9
    await manager.control.UpdateService(control_pb2.UpdateServiceRequest(service="web", spec=spec), None)
    assert (await manager.location.answer("w1", asking(service_id))).credentials.password == "secret"
    new = RegistryCredentials(username="me", password="newer")
    await manager.control.UpdateService(
        control_pb2.UpdateServiceRequest(service="web", spec=spec, credentials=new), None
    )
    assert (await manager.location.answer("w1", asking(service_id))).credentials.password == "newer"
    # What belongs to one service opens as no other's.
    stolen = type(manager.mirror.logins[service_id])(Meta("other"), manager.mirror.logins[service_id].sealed)
    with pytest.raises(InvalidArgument, match="does not open"):
        await commit(manager.store, [create(stolen, "test")])
        manager.location._open_login(stolen)
    await manager.control.RemoveService(control_pb2.RemoveServiceRequest(service="web"), None)
    assert not (await manager.store.read(f"/login/{service_id}")).records


async def test_who_names_a_registry_means_what_is_there_and_a_bare_name_the_clusters_own(manager: Any) -> None:
    own, there = "sha256:" + "2" * 64, "sha256:" + "3" * 64
    manager.inventory.put("w1", [Held("docker.io/library/web:1", own), Held(IMAGE, own)])

    async def pinned(image: str, name: str, said: str) -> str:
        spec = ServiceSpec(name=name, task=TaskSpec(container=ContainerSpec(image=image)))
        request = control_pb2.CreateServiceRequest(spec=to_wire(spec, types_pb2.ServiceSpec), image_digest=said)
        return str((await manager.control.CreateService(request, None)).service.image_digest)

    assert await pinned("web:1", "a", there) == own
    assert await pinned(IMAGE, "b", there) == there
    assert await pinned(IMAGE, "c", "") == own
    assert await pinned("other:1", "d", there) == there
    with pytest.raises(InvalidArgument, match="invalid digest"):
        await pinned(IMAGE, "e", "latest")


async def test_an_update_with_a_newer_digest_is_one(manager: Any) -> None:
    service_id = await served(manager, image_digest=DIGEST)
    spec = (await manager.control.GetService(control_pb2.GetServiceRequest(service="web"), None)).service.service.spec
    newer = "sha256:" + "4" * 64
    for said, version, digest in (("", 1, DIGEST), (DIGEST, 1, DIGEST), (newer, 2, newer), ("", 2, newer)):
        request = control_pb2.UpdateServiceRequest(service="web", spec=spec, image_digest=said)
        await manager.control.UpdateService(request, None)
        service = manager.mirror.services[service_id]
        assert (service.task_version, service.image_digest) == (version, digest)


def test_an_errand_lapses_when_nothing_is_heard_of_it() -> None:
    clock = ManualClock()
    errands = Errands(clock)
    assert errands.go("a", "w1") and not errands.go("a", "w2") and errands.go("b", "w2")
    clock._elapsed += LAPSE_S - 1
    assert errands.go("a", "w1")
    clock._elapsed += LAPSE_S - 1
    assert errands.under_way("a") and not errands.under_way("b") and not errands.go("a", "w2")
    errands.end("a", "w2")
    assert errands.under_way("a")
    clock._elapsed += 2
    assert errands.go("a", "w2")
