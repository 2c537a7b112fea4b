"""`service ls` and `service ps`."""

import time
from typing import Annotated

from cli.client import Client
from cli.command import Arguments, command, switch
from cli.container.lifecycle import complain
from cli.listing import ListFlags
from cli.parse import pair
from cli.service.words import service_row, task_rows
from shoal.errors import ShoalError
from shoal.v1 import control_pb2
from shoal.v1.engine_pb2 import Filter

_COLUMNS = ("ID", "Name", "Mode", "Replicas", "Image", "Ports")
TASK_COLUMNS = ("ID", "Name", "Image", "Node", "DesiredState", "CurrentState", "Error", "Ports")


@command("[OPTIONS]", examples=["shoal service ls", "shoal service ls --filter mode=global -q"])
async def ls(client: Client, flags: ListFlags) -> None:
    """List services"""
    request = control_pb2.ListServicesRequest(filters=pair.filters(flags.filter))
    answer = await client.control.ListServices(request)
    rows = [service_row(each, whole=flags.no_trunc) for each in answer.services]
    print(flags.draw(rows, columns=_COLUMNS), end="")


@command(
    "[OPTIONS] SERVICE [SERVICE...]",
    examples=["shoal service ps web", "shoal service ps --filter desired-state=running --no-trunc web"],
)
async def ps(
    client: Client,
    flags: ListFlags,
    services: Arguments,
    no_resolve: Annotated[bool, switch("--no-resolve", help="Do not map IDs to Names")] = False,
) -> int:
    """List the tasks of one or more services"""
    return await print_tasks(client, flags, "service", services, no_resolve=no_resolve)


async def print_tasks(client: Client, flags: ListFlags, key: str, names: list[str], *, no_resolve: bool) -> int:
    """The tasks of services or nodes; a name that is not known is told and does not keep the others."""
    failed, found = 0, {}
    for name in names:
        filters = [*pair.filters(flags.filter), Filter(key=key, value=name)]
        try:
            answer = await client.control.ListTasks(control_pb2.ListTasksRequest(filters=filters))
        except ShoalError as error:
            failed = complain(error)
            continue
        found.update({view.task.meta.id: view for view in answer.tasks})
    if found or not failed:
        rows = task_rows(list(found.values()), whole=flags.no_trunc, resolve=not no_resolve, now_ns=time.time_ns())
        print(flags.draw(rows, columns=TASK_COLUMNS), end="")
    return failed
