"""`builder prune`: apart from `build`, which need not import how one prunes."""

from typing import Annotated

from cli.client import Client
from cli.command import command, switch
from cli.parse import pair
from cli.prune import PruneFlags, confirmed, tell
from shoal.duration import duration
from shoal.errors import Conflict
from shoal.v1 import build_pb2


@command("[OPTIONS]", examples=["shoal builder prune", "shoal builder prune -f --filter until=24h"])
async def prune(
    client: Client,
    flags: PruneFlags,
    all: Annotated[  # noqa: ARG001
        bool, switch("-a", "--all", help="Remove all unused build cache, which is what happens anyway")
    ] = False,
) -> None:
    """Remove build cache"""
    found = pair.filters(flags.filter)
    for each in found:
        if each.key not in ("until", "unused-for"):
            raise Conflict(f"invalid filter '{each.key}'", hint="use until=24h")
    unused_s = max((duration(each.value) // 10**9 for each in found), default=0)
    if not confirmed("This will remove all build cache that no build uses now.", flags):
        return
    answer = await client.builds.PruneBuilds(build_pb2.PruneBuildsRequest(unused_s=unused_s))
    tell("Deleted build cache objects:", answer.steps, answer.reclaimed_bytes)
