"""Calls on services: intent, checked and completed, becomes a record; the loops do the rest."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import grpc.aio
import msgspec

from manager.api.check import check
from manager.api.find import begins, contains, is_any, labelled, passes, service_of
from manager.api.permission import require
from manager.api.privilege import reaches_the_host
from manager.api.room import Room, creating, pairs, removing, with_login, writing
from manager.ca.login import sealed
from manager.control.action import touched
from manager.dispatcher.assignment import redeploys
from manager.store import base
from manager.store.base import Txn
from manager.store.mirror import MirrorEvent
from shoal import defaults
from shoal import digest as digests
from shoal.broadcast import Lagged, Subscription
from shoal.codec import from_wire, to_wire
from shoal.errors import Conflict
from shoal.ids import new_id
from shoal.model.base import Meta
from shoal.model.login import Login
from shoal.model.service import Service, ServiceMode, ServiceSpec
from shoal.model.task import Task, TaskState
from shoal.model.user import UserRole
from shoal.names import random_name
from shoal.reference import DEFAULT_DOMAIN, parse
from shoal.v1 import control_pb2 as wire
from shoal.v1 import types_pb2

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

WATCH_EVERY_S = 0.1
WATCH_PER_TASK_S = 0.0001


class ServiceCalls:
    _room: Room

    async def CreateService(self, request: wire.CreateServiceRequest, _context: Context) -> wire.CreateServiceResponse:
        spec = self._completed(request.spec)
        self._check_service(spec)
        if self._room.mirror.service_named(spec.name) is not None:
            raise _exists(spec.name)
        now_ns = self._room.clock.now_ns()
        digest = await self._digest(spec, request.image_digest)
        service = Service(
            meta=Meta(id=new_id(), created_at_ns=now_ns, updated_at_ns=now_ns),
            spec=spec,
            task_version=1,
            image_digest=digest,
        )
        try:
            await self._room.write(with_login(creating(service), self._login(service.meta.id, request.credentials)))
        except base.Conflict as error:
            raise _exists(spec.name) from error
        made = self._service(service.meta.id)
        return wire.CreateServiceResponse(service=to_wire(made, types_pb2.Service), warnings=_warnings(spec, digest))

    async def UpdateService(self, request: wire.UpdateServiceRequest, _context: Context) -> wire.UpdateServiceResponse:
        service = self._service(request.service)
        await self._room.check_version(service, request.version)
        spec = self._completed(request.spec)
        if spec.name != service.spec.name:
            raise Conflict("renaming services is not supported", hint="create another one and remove this")
        if spec.mode is not service.spec.mode:
            raise Conflict("service mode change is not allowed", hint="create another one and remove this")
        self._check_service(spec, service.spec)
        now_ns = self._room.clock.now_ns()
        digest = await self._digest(spec, request.image_digest)
        login = self._login(service.meta.id, request.credentials)
        renewed = bool(request.image_digest)

        def attempt() -> Txn:
            return with_login(writing(self._changed(service.meta.id, spec, digest, now_ns, renewed=renewed)), login)

        await self._room.change(attempt)
        made = self._service(service.meta.id)
        return wire.UpdateServiceResponse(service=to_wire(made, types_pb2.Service), warnings=_warnings(spec, digest))

    async def GetService(self, request: wire.GetServiceRequest, _context: Context) -> wire.GetServiceResponse:
        return wire.GetServiceResponse(service=self._service_view(self._service(request.service)))

    async def ListServices(self, request: wire.ListServicesRequest, _context: Context) -> wire.ListServicesResponse:
        filters = pairs(request.filters)
        passes(filters, _tests(Service()))
        found = [service for service in self._room.mirror.services.values() if passes(filters, _tests(service))]
        found.sort(key=lambda service: service.spec.name)
        return wire.ListServicesResponse(services=[self._service_view(service) for service in found])

    async def RemoveService(self, request: wire.RemoveServiceRequest, _context: Context) -> wire.RemoveServiceResponse:
        id = self._service(request.service).meta.id

        def attempt() -> Txn:
            return removing(self._service(id))

        await self._room.change(attempt)
        return wire.RemoveServiceResponse()

    async def WatchService(
        self, request: wire.WatchServiceRequest, _context: Context
    ) -> AsyncIterator[wire.WatchServiceResponse]:
        id = self._service(request.service).meta.id
        with self._room.mirror.changes.subscribe() as events:
            while True:
                snapshot = self._snapshot(self._service(id))
                yield snapshot
                # Of ten thousand tasks once in a second: a look at each costs the manager time as well.
                await self._room.clock.sleep(max(WATCH_EVERY_S, len(snapshot.tasks) * WATCH_PER_TASK_S))
                while not _concerns(events, id):
                    await events.wait()

    def _check_service(self, spec: ServiceSpec, before: ServiceSpec | None = None) -> None:
        """Raises what `check` raises, and PermissionDenied for who would get more of a host than their role allows.
        What runs already with its `before` may be scaled by whoever may scale."""
        check(self._room.mirror, spec)
        old, new = before.task if before is not None else None, spec.task
        known = old is not None and (old.container, old.networks) == (new.container, new.networks)
        if not known and reaches_the_host(new):
            require(self._room.mirror, UserRole.OPERATOR, "a service with more of its hosts than its own containers")

    def _completed(self, message: types_pb2.ServiceSpec) -> ServiceSpec:
        """The user's spec with the defaults filled in where nothing was said."""
        spec = from_wire(message, ServiceSpec)
        if not message.task.restart.condition:
            task = msgspec.structs.replace(spec.task, restart=defaults.TASK_RESTART)
            spec = msgspec.structs.replace(spec, task=task)
        if not message.HasField("update"):
            spec = msgspec.structs.replace(spec, update=defaults.UPDATE)
        if not spec.name:
            taken = {service.spec.name for service in self._room.mirror.services.values()}
            spec = msgspec.structs.replace(spec, name=random_name(taken, random.random))
        return spec

    def _changed(self, id: str, spec: ServiceSpec, digest: str, now_ns: int, *, renewed: bool) -> Service:
        """The record with its new spec; a changed task makes a new version of it. `renewed`: the registry was asked
        anew what the image is."""
        service = self._service(id)
        if spec.task.container.image == service.spec.task.container.image and not renewed:
            digest = service.image_digest or digest
        if not redeploys(service.spec, spec) and (digest == service.image_digest or not renewed):
            return touched(service, now_ns, spec=spec, previous=service.spec)
        return touched(
            service,
            now_ns,
            spec=spec,
            previous=service.spec,
            outgoing=service.spec,
            task_version=service.task_version + 1,
            image_digest=digest,
        )

    async def _digest(self, spec: ServiceSpec, said: str) -> str:
        """The digest that all tasks shall run, so that a tag that moves on does not mix versions; empty when neither
        the cluster nor the registry (`said`) knows it. Who names a registry means what is there; a name without one
        means the cluster's own image first, for a stranger may have put another on Docker Hub under that name."""
        reference = parse(spec.task.container.image).with_default_tag()
        if reference.digest or (said and reference.domain != DEFAULT_DOMAIN):
            return reference.digest or digests.check(said)
        return await self._room.holders.digest_of(reference.canonical) or (digests.check(said) if said else "")

    def _login(self, service_id: str, credentials: types_pb2.RegistryCredentials) -> Login | None:
        """The record of a service's credentials; None where none were given."""
        if not credentials.username:
            return None
        return sealed(self._room.seal, service_id, credentials.username, credentials.password)

    def _service(self, reference: str) -> Service:
        return service_of(self._room.mirror, reference)

    def _service_view(self, service: Service) -> wire.ServiceView:
        tasks = self._room.mirror.tasks_of_service(service.meta.id)
        wanted = [task for task in tasks if task.desired <= TaskState.RUNNING]
        desired = service.spec.replicas
        if service.spec.mode is ServiceMode.GLOBAL:
            desired = sum(1 for task in wanted if not task.finished)
        return wire.ServiceView(
            service=to_wire(service, types_pb2.Service),
            running=sum(1 for task in wanted if task.status.state is TaskState.RUNNING),
            desired=desired,
        )

    def _snapshot(self, service: Service) -> wire.WatchServiceResponse:
        tasks = sorted(
            self._room.mirror.tasks_of_service(service.meta.id),
            key=lambda task: (task.slot, task.node_id if not task.slot else "", task.meta.created_at_ns),
        )
        last: dict[tuple[int, str], Task] = {(task.slot, "" if task.slot else task.node_id): task for task in tasks}
        newest = {task.meta.id for task in last.values()}
        shown = [task for task in tasks if not task.finished or task.meta.id in newest]
        return wire.WatchServiceResponse(
            service=self._service_view(service), tasks=[to_wire(task, types_pb2.Task) for task in shown]
        )


def _concerns(events: Subscription[MirrorEvent], service_id: str) -> bool:
    """Whether anything of what happened is about the service."""
    try:
        happened = events.drain()
    except Lagged:
        return True
    return any(
        event.id == service_id or getattr(event.new or event.old, "service_id", "") == service_id for event in happened
    )


def _exists(name: str) -> Conflict:
    return Conflict(f"name conflicts with an existing object: service {name} already exists")


def _warnings(spec: ServiceSpec, digest: str) -> list[str]:
    if digest:
        return []
    return [
        f"image {spec.task.container.image} is on no node of the cluster and no registry said its digest; "
        "nodes may end up with different versions of it"
    ]


def _tests(service: Service) -> dict[str, Any]:
    return {
        "id": begins(service.meta.id),
        "name": contains(service.spec.name),
        "label": labelled(service.spec.labels),
        "mode": is_any(service.spec.mode.name.lower()),
    }
