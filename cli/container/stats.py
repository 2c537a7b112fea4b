"""`stats`: what containers use, drawn once a second, or once."""

import sys
from collections.abc import Mapping, Sequence
from typing import Annotated

from cli.client import Client
from cli.command import argument, command, flag, switch
from cli.everywhere import EveryNode, Streams, from_all_nodes
from cli.listing import Json
from cli.output import table, words
from cli.output.screen import Screen
from cli.output.table import Row
from shoal.errors import InvalidArgument
from shoal.ids import short
from shoal.v1 import engine_pb2
from shoal.v1.engine_pb2 import Stats

_COLUMNS = ("ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs")
_HEADERS = {"ID": "CONTAINER ID"}


@command(
    "[OPTIONS] [CONTAINER...]",
    examples=["shoal stats", "shoal stats --no-stream web", "shoal stats --format '{{.Name}}: {{.CPUPerc}}'"],
)
async def stats(
    client: Client,
    containers: Annotated[list[str], argument()] = [],  # noqa: B006
    all: Annotated[bool, switch("-a", "--all", help="Show all containers (default shows just running)")] = False,
    format: Annotated[
        str, flag("--format", help="Format output: 'table', 'table TEMPLATE', 'json' or a Go template")
    ] = "",
    json: Json = False,
    no_stream: Annotated[
        bool, switch("--no-stream", help="Disable streaming stats and only pull the first result")
    ] = False,
    no_trunc: Annotated[bool, switch("--no-trunc", help="Do not truncate output")] = False,
    every_node: EveryNode = False,
) -> int:
    """Display a live stream of container(s) resource usage statistics"""
    screen = Screen(sys.stdout)
    columns = (*(["Node"] if every_node else []), *_COLUMNS)
    before: Mapping[str, Stats] | None = None
    request = engine_pb2.WatchStatsRequest(containers=containers, all=all)
    if every_node and containers:
        raise InvalidArgument("--all-nodes shows what runs on all nodes", hint="leave the names of containers out")
    if every_node:
        streams = await from_all_nodes(client, lambda calls: calls.containers().WatchStats(request))
    else:
        streams = Streams([("", client.containers.WatchStats(request))])
    async for batches in streams.rounds():
        if before is not None:  # a rate needs two
            rows = [
                {
                    **row(each, before.get(each.id), asked=containers, whole=no_trunc),
                    **({"Node": node} if every_node else {}),
                }
                for node, batch in batches
                for each in batch.stats
            ]
            text = table.draw(rows, columns=columns, template=format, json=json, headers=_HEADERS)
            if screen.live and not no_stream:
                screen.draw(text.splitlines())
            else:
                print(text, end="", flush=True)
            if no_stream:
                break
        before = {each.id: each for _, batch in batches for each in batch.stats}
    return streams.failed


def row(now: Stats, before: Stats | None, *, asked: Sequence[str] = (), whole: bool) -> Row:
    """One container as docker's fields. `asked`: what the user called the containers."""
    shown = now.id if whole else short(now.id)
    elapsed_ns = now.at_ns - before.at_ns if before is not None and before.running and now.running else 0
    busy_ns = now.cpu_ns - before.cpu_ns if before is not None else 0
    share = now.memory_bytes / now.memory_limit_bytes if now.memory_limit_bytes else 0.0
    return {
        "ID": shown,
        "Container": next((each for each in asked if each == now.name or now.id.startswith(each)), shown),
        "Name": now.name,
        "CPUPerc": f"{max(busy_ns, 0) / elapsed_ns * 100 if elapsed_ns > 0 else 0.0:.2f}%",
        "MemUsage": f"{words.binary_size(now.memory_bytes)} / {words.binary_size(now.memory_limit_bytes)}",
        "MemPerc": f"{share * 100:.2f}%",
        "NetIO": _both(now.received_bytes, now.sent_bytes),
        "BlockIO": _both(now.read_bytes, now.written_bytes),
        "PIDs": str(now.pids),
    }


def _both(first: int, second: int) -> str:
    return f"{words.decimal_size(first)} / {words.decimal_size(second)}"
