"""`top`: the processes of a container, as the host's ps shows them."""

from typing import Annotated

from cli.client import Client
from cli.command import argument, command
from cli.output import table
from shoal.v1 import engine_pb2


@command("CONTAINER [ps OPTIONS]", examples=["shoal top web", "shoal top web -o pid,rss,args"], interspersed=False)
async def top(
    client: Client,
    container: Annotated[str, argument()],
    arguments: Annotated[list[str], argument()] = [],  # noqa: B006
) -> None:
    """Display the running processes of a container"""
    request = engine_pb2.ListProcessesRequest(container=container, arguments=arguments)
    found = await client.containers.ListProcesses(request)
    print(table.layout([found.titles, *(each.fields for each in found.processes)]), end="")
