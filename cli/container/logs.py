"""`logs`: what a container wrote, each stream to its own."""

import time
from typing import Annotated

from cli.client import Client
from cli.command import argument, command, flag, switch
from cli.output.screen import write_stderr, write_stdout
from cli.output.words import rfc3339_padded
from cli.parse.duration import bound
from cli.parse.number import tail_or_all
from shoal.v1 import engine_pb2


@command(
    "[OPTIONS] CONTAINER",
    examples=["shoal logs -f --tail 100 web", "shoal logs --since 10m -t web"],
)
async def logs(
    client: Client,
    container: Annotated[str, argument()],
    follow: Annotated[bool, switch("-f", "--follow", help="Follow log output")] = False,
    since: Annotated[
        str, flag("--since", help='Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m")')
    ] = "",
    until: Annotated[str, flag("--until", help='Show logs before a timestamp or relative (e.g. "42m")')] = "",
    tail: Annotated[
        int,
        flag(
            "-n", "--tail", parse=tail_or_all, help='Number of lines to show from the end of the logs (default "all")'
        ),
    ] = -1,
    timestamps: Annotated[bool, switch("-t", "--timestamps", help="Show timestamps")] = False,
    details: Annotated[bool, switch("--details", help="Show extra details provided to logs")] = False,
) -> None:
    """Fetch the logs of a container"""
    extra = await _details(client, container) if details else ""
    now_ns = time.time_ns()
    since_ns, until_ns = bound(since, now_ns=now_ns), bound(until, now_ns=now_ns)
    request = engine_pb2.ReadLogsRequest(
        container=container,
        follow=follow,
        tail=tail if tail >= 0 else None,
        since_ns=since_ns,
        until_ns=until_ns,
        stdout=True,
        stderr=True,
    )
    begun = {False: True, True: True}  # per stream: the next byte begins a line
    async for batch in client.containers.ReadLogs(request):
        for line in batch.lines:
            data = line.data
            if begun[line.stderr]:
                stamp = f"{rfc3339_padded(line.at_ns)} " if timestamps else ""
                data = f"{stamp}{extra}".encode() + data
            begun[line.stderr] = line.data.endswith(b"\n")
            (write_stderr if line.stderr else write_stdout)(data)


async def _details(client: Client, container: str) -> str:
    """What its log options want said with each line: some of its labels and variables, in docker's form."""
    answer = await client.containers.GetContainer(engine_pb2.GetContainerRequest(container=container))
    spec, options = answer.container.spec, answer.container.spec.log.options
    known = {
        **{name: spec.labels[name] for name in options["labels"].split(",") if name in spec.labels},
        **{
            name: value
            for name, _, value in (each.partition("=") for each in answer.container.env)
            if name in options["env"].split(",")
        },
    }
    return ",".join(f"{name}={known[name]}" for name in sorted(known)) + " "
