"""`rename` and `update`: what can be changed of a container that is there."""

import sys
from typing import Annotated

from cli.client import Client
from cli.command import Arguments, argument, command, flag
from cli.container.flags import TuningFlags
from cli.container.lifecycle import each_in_turn
from cli.container.request import tuning
from cli.parse import process, size
from cli.parse.number import integer
from shoal.errors import ShoalError
from shoal.v1 import engine_pb2
from shoal.v1.types_pb2 import Resources, Tuning


@command("CONTAINER NEW_NAME", examples=["shoal rename web web-old"])
async def rename(
    client: Client,
    container: Annotated[str, argument()],
    new_name: Annotated[str, argument()],
) -> None:
    """Rename a container"""
    if not container.strip() or not new_name.strip():
        raise ShoalError("Neither old nor new names may be empty")
    await client.containers.RenameContainer(engine_pb2.RenameContainerRequest(container=container, name=new_name))


class UpdateFlags(TuningFlags):
    """What is given changes; what is not stays."""

    cpus: Annotated[int, flag("--cpus", metavar="decimal", parse=size.cpus, help="Number of CPUs")] = 0
    memory: Annotated[int, flag("-m", "--memory", metavar="bytes", parse=size.size, help="Memory limit")] = 0
    pids_limit: Annotated[
        int, flag("--pids-limit", metavar="int", parse=integer, help="Tune container pids limit (set -1 for unlimited)")
    ] = 0
    restart: Annotated[str, flag("--restart", help="Restart policy to apply when a container exits")] = ""


@command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    examples=["shoal update -m 512m --cpus 1.5 web", "shoal update --restart always web db"],
)
async def update(client: Client, flags: UpdateFlags, containers: Arguments) -> int:
    """Update configuration of one or more containers"""
    limits = Resources(nano_cpus=flags.cpus, memory_bytes=flags.memory, pids=flags.pids_limit)
    tuned = tuning(flags)
    policy = process.restart(flags.restart) if flags.restart else None
    if (limits, tuned) == (Resources(), Tuning()) and policy is None:
        raise ShoalError("you must provide one or more flags when using this command")

    async def one(container: str) -> None:
        request = engine_pb2.UpdateContainerRequest(container=container, limits=limits, tuning=tuned, restart=policy)
        for warning in (await client.containers.UpdateContainer(request)).warnings:
            print(f"WARNING: {warning}", file=sys.stderr)

    return await each_in_turn(containers, one)
