"""ContainerService: containers of this host over RPC. `agent.api.stream` carries the bytes of attach and exec."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import grpc.aio
import msgspec

from agent.api.stream import relay, relay_attachment
from agent.container.containers import Containers, WaitCondition
from agent.container.difference import Kind
from agent.container.exec import ExecRequest
from agent.container.host import discarded
from agent.container.launch import Size
from agent.container.settle import warnings_of
from shoal import codec, ids
from shoal.errors import InvalidArgument, NotFound
from shoal.model.base import Resources
from shoal.model.container import Container, ContainerSpec, Origin, RestartPolicy, Tuning
from shoal.model.network import NetworkAttachment, Port
from shoal.v1 import engine_pb2 as wire
from shoal.v1 import types_pb2
from shoal.v1.engine_pb2_grpc import ContainerServiceServicer

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

Opening = TypeVar("Opening", wire.AttachContainerRequest, wire.ExecContainerRequest, wire.WriteArchiveRequest)

_KINDS = {
    Kind.MODIFIED: wire.CHANGE_KIND_MODIFIED,
    Kind.ADDED: wire.CHANGE_KIND_ADDED,
    Kind.DELETED: wire.CHANGE_KIND_DELETED,
}
_CONDITIONS = {
    wire.WAIT_CONDITION_UNSPECIFIED: WaitCondition.NOT_RUNNING,
    wire.WAIT_CONDITION_NOT_RUNNING: WaitCondition.NOT_RUNNING,
    wire.WAIT_CONDITION_NEXT_EXIT: WaitCondition.NEXT_EXIT,
    wire.WAIT_CONDITION_REMOVED: WaitCondition.REMOVED,
}


class ContainerService(ContainerServiceServicer):
    def __init__(self, containers: Containers) -> None:
        self._containers = containers

    async def CreateContainer(
        self, request: wire.CreateContainerRequest, _context: Context
    ) -> wire.CreateContainerResponse:
        wanted = Container(
            name=request.name,
            spec=codec.from_wire(request.spec, ContainerSpec),
            limits=codec.from_wire(request.limits, Resources),
            restart=codec.from_wire(request.restart, RestartPolicy),
            networks=tuple(codec.from_wire(each, NetworkAttachment) for each in request.networks),
            ports=tuple(codec.from_wire(each, Port) for each in request.ports),
            auto_remove=request.auto_remove,
            tuning=codec.from_wire(request.tuning, Tuning),
            origin=codec.from_wire(request.origin, Origin),
        )
        container = await self._containers.create(wanted, publish_all=request.publish_all, platform=request.platform)
        foreign = () if request.platform else await self._containers.survey.foreign(container)
        warnings = (*foreign, *warnings_of(container), *discarded(container))
        return wire.CreateContainerResponse(id=container.meta.id, warnings=warnings)

    async def StartContainer(
        self, request: wire.StartContainerRequest, _context: Context
    ) -> wire.StartContainerResponse:
        await self._containers.start(request.container)
        return wire.StartContainerResponse()

    async def StopContainer(self, request: wire.StopContainerRequest, _context: Context) -> wire.StopContainerResponse:
        timeout_s = request.timeout_s if request.HasField("timeout_s") else None
        await self._containers.stop(request.container, timeout_s=timeout_s, signal=request.signal)
        return wire.StopContainerResponse()

    async def KillContainer(self, request: wire.KillContainerRequest, _context: Context) -> wire.KillContainerResponse:
        await self._containers.kill(request.container, request.signal)
        return wire.KillContainerResponse()

    async def RemoveContainer(
        self, request: wire.RemoveContainerRequest, _context: Context
    ) -> wire.RemoveContainerResponse:
        await self._containers.remove(request.container, force=request.force, volumes=request.volumes)
        return wire.RemoveContainerResponse()

    async def RestartContainer(
        self, request: wire.RestartContainerRequest, _context: Context
    ) -> wire.RestartContainerResponse:
        timeout_s = request.timeout_s if request.HasField("timeout_s") else None
        await self._containers.restart(request.container, timeout_s=timeout_s, signal=request.signal)
        return wire.RestartContainerResponse()

    async def PauseContainer(
        self, request: wire.PauseContainerRequest, _context: Context
    ) -> wire.PauseContainerResponse:
        await self._containers.pause(request.container)
        return wire.PauseContainerResponse()

    async def UnpauseContainer(
        self, request: wire.UnpauseContainerRequest, _context: Context
    ) -> wire.UnpauseContainerResponse:
        await self._containers.resume(request.container)
        return wire.UnpauseContainerResponse()

    async def RenameContainer(
        self, request: wire.RenameContainerRequest, _context: Context
    ) -> wire.RenameContainerResponse:
        await self._containers.rename(request.container, request.name)
        return wire.RenameContainerResponse()

    async def UpdateContainer(
        self, request: wire.UpdateContainerRequest, _context: Context
    ) -> wire.UpdateContainerResponse:
        restart = codec.from_wire(request.restart, RestartPolicy) if request.HasField("restart") else None
        limits = codec.from_wire(request.limits, Resources)
        tuning = codec.from_wire(request.tuning, Tuning)
        await self._containers.update(request.container, limits=limits, tuning=tuning, restart=restart)
        return wire.UpdateContainerResponse(warnings=discarded(Container(limits=limits, tuning=tuning)))

    async def ConnectContainer(
        self, request: wire.ConnectContainerRequest, _context: Context
    ) -> wire.ConnectContainerResponse:
        await self._containers.connect(request.container, codec.from_wire(request.attachment, NetworkAttachment))
        return wire.ConnectContainerResponse()

    async def DisconnectContainer(
        self, request: wire.DisconnectContainerRequest, _context: Context
    ) -> wire.DisconnectContainerResponse:
        await self._containers.disconnect(request.container, request.network)
        return wire.DisconnectContainerResponse()

    async def PruneContainers(
        self, request: wire.PruneContainersRequest, _context: Context
    ) -> wire.PruneContainersResponse:
        removed, freed = await self._containers.prune([(each.key, each.value) for each in request.filters])
        return wire.PruneContainersResponse(containers=removed, reclaimed_bytes=freed)

    async def ListProcesses(self, request: wire.ListProcessesRequest, _context: Context) -> wire.ListProcessesResponse:
        found = await self._containers.survey.processes(request.container, request.arguments)
        rows = [wire.Process(fields=row) for row in found.rows]
        return wire.ListProcessesResponse(titles=found.titles, processes=rows)

    async def WatchStats(
        self, request: wire.WatchStatsRequest, _context: Context
    ) -> AsyncIterator[wire.WatchStatsResponse]:
        async for batch in self._containers.survey.stats(request.containers, all=request.all):
            yield wire.WatchStatsResponse(stats=[wire.Stats(**msgspec.structs.asdict(each)) for each in batch])

    async def DiffContainer(self, request: wire.DiffContainerRequest, _context: Context) -> wire.DiffContainerResponse:
        changes = await self._containers.survey.difference(request.container)
        return wire.DiffContainerResponse(
            changes=[wire.Change(kind=_KINDS[each.kind], path=each.path) for each in changes]
        )

    async def StatPath(self, request: wire.StatPathRequest, _context: Context) -> wire.StatPathResponse:
        found = await self._containers.files.stat(request.container, request.path)
        return wire.StatPathResponse(
            name=found.name,
            mode=found.mode,
            size_bytes=found.size,
            modified_at_ns=found.mtime_ns,
            link_target=found.link,
        )

    async def ReadArchive(
        self, request: wire.ReadArchiveRequest, _context: Context
    ) -> AsyncIterator[wire.ReadArchiveResponse]:
        pieces = self._containers.files.read(request.container, request.path, request.name)
        async with contextlib.aclosing(pieces):
            async for piece in pieces:
                yield wire.ReadArchiveResponse(chunk=piece)

    async def WriteArchive(
        self, requests: AsyncIterator[wire.WriteArchiveRequest], _context: Context
    ) -> wire.WriteArchiveResponse:
        opening = (await _first(requests, "a copy")).open
        await self._containers.files.write(
            opening.container,
            opening.path,
            (each.chunk async for each in requests),
            keep_owner=opening.keep_owner,
        )
        return wire.WriteArchiveResponse()

    async def ExportContainer(
        self, request: wire.ExportContainerRequest, _context: Context
    ) -> AsyncIterator[wire.ExportContainerResponse]:
        pieces = self._containers.files.export(request.container)
        async with contextlib.aclosing(pieces):
            async for piece in pieces:
                yield wire.ExportContainerResponse(chunk=piece)

    async def CommitContainer(
        self, request: wire.CommitContainerRequest, _context: Context
    ) -> wire.CommitContainerResponse:
        image_id = await self._containers.commit(
            request.container,
            reference=request.reference,
            author=request.author,
            message=request.message,
            changes=request.changes,
            pause=not request.no_pause,
        )
        return wire.CommitContainerResponse(image_id=image_id)

    async def WaitContainer(self, request: wire.WaitContainerRequest, _context: Context) -> wire.WaitContainerResponse:
        if request.condition not in _CONDITIONS:
            raise InvalidArgument(f"wait condition {request.condition} is not one that this agent knows")
        ending = await self._containers.wait(request.container, _CONDITIONS[request.condition])
        return wire.WaitContainerResponse(exit_code=ending.exit_code, error=ending.error)

    async def GetContainer(self, request: wire.GetContainerRequest, _context: Context) -> wire.GetContainerResponse:
        container = self._containers.get(request.container)
        size = await self._size(container.meta.id) if request.size else None
        layout = msgspec.structs.asdict(self._containers.survey.layout(container.meta.id))
        folders = wire.Folders(**msgspec.structs.asdict(layout.pop("folders")))
        return wire.GetContainerResponse(
            container=codec.to_wire(container, types_pb2.Container),
            size=size,
            layout=wire.ContainerLayout(folders=folders, **layout),
        )

    async def ListContainers(
        self, request: wire.ListContainersRequest, _context: Context
    ) -> wire.ListContainersResponse:
        filters = [(each.key, each.value) for each in request.filters]
        found = await self._containers.list(all=request.all, last=request.last, filters=filters)
        listed = [codec.to_wire(each, types_pb2.Container) for each in found]
        for each in listed:
            each.status.health.ClearField("results")  # kilobytes that no list shows
        sizes = {}
        for taken in found if request.size else ():
            with contextlib.suppress(NotFound):  # removed meanwhile
                sizes[taken.meta.id] = await self._size(taken.meta.id)
        untagged = self._containers.survey.untagged(found)
        return wire.ListContainersResponse(containers=listed, sizes=sizes, untagged=untagged)

    async def _size(self, container_id: str) -> wire.ContainerSize:
        return wire.ContainerSize(**msgspec.structs.asdict(await self._containers.survey.size(container_id)))

    async def AttachContainer(
        self, requests: AsyncIterator[wire.AttachContainerRequest], _context: Context
    ) -> AsyncIterator[wire.AttachContainerResponse]:
        opening = (await _first(requests, "attach")).open
        attachment = await self._containers.visits.attach(
            opening.container,
            stdin=opening.stdin,
            start=opening.start,
            size=Size(opening.size.rows, opening.size.columns),
        )
        try:
            yield wire.AttachContainerResponse(ready=True)
            shown = () if opening.silent else _streams(stdout=opening.stdout, stderr=opening.stderr)
            async for response in relay_attachment(attachment, requests, shown):
                yield response
        finally:
            await attachment.close()

    async def ExecContainer(
        self, requests: AsyncIterator[wire.ExecContainerRequest], _context: Context
    ) -> AsyncIterator[wire.ExecContainerResponse]:
        opening = (await _first(requests, "exec")).open
        command = ExecRequest(
            id=ids.new_local_id(),
            argv=tuple(opening.argv),
            env=tuple(opening.env),
            workdir=opening.workdir,
            user=opening.user,
            tty=opening.tty,
            stdin=opening.stdin and not opening.detach,
            privileged=opening.privileged,
            rows=opening.size.rows,
            columns=opening.size.columns,
        )
        streams = await self._containers.visits.exec(opening.container, command)
        try:
            yield wire.ExecContainerResponse(started=streams.pid)
            if not opening.detach:
                async for response in relay(streams, requests):
                    if response.WhichOneof("response") == "exit":
                        self._containers.visits.exec_ended(opening.container, command, response.exit.code)
                    yield response
        finally:
            await streams.close()

    async def ReadLogs(self, request: wire.ReadLogsRequest, _context: Context) -> AsyncIterator[wire.ReadLogsResponse]:
        shown = _streams(stdout=request.stdout, stderr=request.stderr)
        async for batch in self._containers.survey.logs(
            request.container,
            follow=request.follow,
            tail=request.tail if request.HasField("tail") else None,
            since_ns=request.since_ns,
            until_ns=request.until_ns,
        ):
            response = wire.ReadLogsResponse()
            for each in batch:
                if (2 if each.stderr else 1) in shown:
                    response.lines.add(at_ns=each.at_ns, stderr=each.stderr, data=each.data)
            if response.lines:
                yield response


def _streams(*, stdout: bool, stderr: bool) -> Sequence[int]:
    """Which streams a client wants to see: who asks for none means both."""
    wanted = [number for number, asked in ((1, stdout), (2, stderr)) if asked]
    return wanted or (1, 2)


async def _first(requests: AsyncIterator[Opening], what: str) -> Opening:
    """The message that opens a stream."""
    async for request in requests:
        if request.WhichOneof("request") == "open":
            return request
        break
    raise InvalidArgument(f"the first message of {what} must be `open`")
