"""`service logs`: what all tasks of a service say, read from the node of each; `merge` makes one output of it.

Without `--follow` the lines come in the order of their times; with it, as they come, those of new tasks too.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated

from cli.client import Client
from cli.command import Flags, argument, command, flag, switch
from cli.container.lifecycle import complain
from cli.output.screen import write_stderr, write_stdout
from cli.parse.duration import bound
from cli.parse.number import tail as tail_lines
from cli.service.merge import Printer, Said, in_time
from cli.service.words import in_order
from shoal.errors import InvalidArgument, NotFound, ShoalError
from shoal.ids import short
from shoal.v1 import control_pb2
from shoal.v1.control_pb2 import TaskView
from shoal.v1.engine_pb2 import Filter, ReadLogsRequest
from shoal.v1.types_pb2 import TASK_STATE_RUNNING, Service, Task

# Lines that wait to be written: a slow terminal holds the readers back.
_BACKLOG = 1000


class LogFlags(Flags):
    """What is shown of the lines, and which."""

    follow: Annotated[bool, switch("-f", "--follow", help="Follow log output")] = False
    no_resolve: Annotated[bool, switch("--no-resolve", help="Do not map IDs to Names in output")] = False
    no_task_ids: Annotated[bool, switch("--no-task-ids", help="Do not include task IDs in output")] = False
    no_trunc: Annotated[bool, switch("--no-trunc", help="Do not truncate output")] = False
    raw: Annotated[bool, switch("--raw", help="Do not neatly format logs")] = False
    since: Annotated[
        str, flag("--since", help='Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m")')
    ] = ""
    tail: Annotated[
        int,
        flag(
            "-n",
            "--tail",
            parse=tail_lines,
            late=True,
            help='Number of lines of each task from its logs\' end (default "all")',
        ),
    ] = -1
    timestamps: Annotated[bool, switch("-t", "--timestamps", help="Show timestamps")] = False


@command(
    "[OPTIONS] SERVICE|TASK",
    examples=["shoal service logs -f --tail 10 web", "shoal service logs --since 10m -t web.2"],
)
async def logs(client: Client, flags: LogFlags, name: Annotated[str, argument()]) -> int:
    """Fetch the logs of a service or task"""
    since_ns = bound(flags.since, now_ns=time.time_ns())
    service, views = await _find(client, name)
    if service is not None and service.spec.task.container.tty and not flags.raw:
        raise InvalidArgument("tty service logs only supported with --raw")
    reading = Reading(client, flags, since_ns)
    printer = Printer(timestamps=flags.timestamps, raw=flags.raw)
    views = [view for view in in_order(views) if view.task.status.container_id]
    for view in views:
        printer.widen(source_of(view, flags))
    everything = reading.follow(service, views) if flags.follow else reading.past(views)
    async with contextlib.aclosing(everything) as lines:
        async for said in lines:
            (write_stderr if said.line.stderr else write_stdout)(printer.render(said))
    return reading.failed


async def _find(client: Client, name: str) -> tuple[Service | None, list[TaskView]]:
    """A service with its tasks; or no service, and the one task of that name."""
    try:
        service = (await client.control.GetService(control_pb2.GetServiceRequest(service=name))).service.service
    except NotFound:
        try:
            return None, [await _task(client, name)]
        except NotFound as error:
            raise NotFound(f"no such task or service: {name}") from error
    filters = [Filter(key="service", value=service.meta.id)]
    answer = await client.control.ListTasks(control_pb2.ListTasksRequest(filters=filters))
    return service, list(answer.tasks)


async def _task(client: Client, name: str) -> TaskView:
    return (await client.control.GetTask(control_pb2.GetTaskRequest(task=name))).task


class Reading:
    """Streams of several tasks. What cannot be read is told, keeps nobody else, and makes `failed` 1."""

    def __init__(self, client: Client, flags: LogFlags, since_ns: int) -> None:
        self.failed = 0
        self._client = client
        self._flags = flags
        self._since_ns = since_ns

    async def past(self, views: list[TaskView]) -> AsyncGenerator[Said, None]:
        """What the tasks have said until now."""
        async for said in in_time([self._of(view, self._flags.tail) for view in views]):
            yield said

    async def follow(self, service: Service | None, views: list[TaskView]) -> AsyncGenerator[Said, None]:
        """What they have said and will say; of a service also what its new tasks say, until it is removed."""
        said: asyncio.Queue[Said | None] = asyncio.Queue(_BACKLOG)
        following = asyncio.ensure_future(self._follow(service, views, said))
        try:
            while (each := await said.get()) is not None:
                yield each
            await following
        finally:
            following.cancel()

    async def _follow(self, service: Service | None, views: list[TaskView], said: asyncio.Queue[Said | None]) -> None:
        async def pass_on(view: TaskView, tail: int) -> None:
            async for each in self._of(view, tail):
                await said.put(each)

        started = [view for view in views if _started(view.task)]
        try:
            async with asyncio.TaskGroup() as readers:
                for view in started:
                    readers.create_task(pass_on(view, self._flags.tail))
                if service is not None:
                    async for view in self._new(service, {view.task.meta.id for view in started}):
                        readers.create_task(pass_on(view, -1))
        finally:
            await said.put(None)

    async def _new(self, service: Service, known: set[str]) -> AsyncIterator[TaskView]:
        """Tasks that come to run, or came to it and ended already."""
        request = control_pb2.WatchServiceRequest(service=service.meta.id)
        try:
            async for response in self._client.control.WatchService(request):
                for task in response.tasks:
                    if task.meta.id not in known and _started(task):
                        known.add(task.meta.id)
                        with contextlib.suppress(NotFound):
                            yield await _task(self._client, task.meta.id)
        except NotFound:  # removed: nothing new will come
            return
        except ShoalError as error:
            self.failed = complain(error)

    async def _of(self, view: TaskView, tail: int) -> AsyncIterator[Said]:
        task, source = view.task, source_of(view, self._flags)
        request = ReadLogsRequest(
            container=task.status.container_id,
            follow=self._flags.follow,
            tail=tail if tail >= 0 else None,
            since_ns=self._since_ns,
            stdout=True,
            stderr=True,
        )
        try:
            async for batch in self._client.calls.at(task.node_id).containers().ReadLogs(request):
                for line in batch.lines:
                    yield Said(source, line)
        except ShoalError as error:
            if isinstance(error, NotFound) and task.status.state > TASK_STATE_RUNNING:
                return  # the container went, and what it had said with it
            self.failed = complain(ShoalError(f"logs of {source} cannot be read: {error.message}", hint=error.hint))


def _started(task: Task) -> bool:
    """Whether there is something to follow: the logs of a container that is only created end at once."""
    return bool(task.status.container_id) and task.status.state >= TASK_STATE_RUNNING


def source_of(view: TaskView, flags: LogFlags) -> str:
    """ "web.1.x4m9…@n1": the task that says something, and where."""
    task = view.task
    name = task.service_id if flags.no_resolve else view.service_name or task.service_id
    text = f"{name}.{task.slot or task.node_id}"
    if not flags.no_task_ids:
        text += f".{task.meta.id if flags.no_trunc else short(task.meta.id)}"
    return f"{text}@{task.node_id if flags.no_resolve else view.node_name or task.node_id}"
