"""`prune` of every noun: asks first, removes what nobody uses, and tells what that freed."""

import sys
import time
from collections.abc import Iterable
from typing import Annotated

from cli.client import Client
from cli.command import Flags, command, flag, switch
from cli.output import words
from cli.parse import pair
from cli.parse.duration import moment
from shoal.v1 import engine_pb2

# Docker's filter for what became its flag.
_ALL = ("all=1", "all=true")
_NOT_DANGLING = {"dangling=false", "dangling=0"}
_DANGLING = {"dangling=true", "dangling=1", *_NOT_DANGLING}


class PruneFlags(Flags):
    """What goes, and whether to ask."""

    filter: Annotated[
        list[str],
        flag(
            "--filter", metavar="filter", parse=pair.condition, help='Provide filter values (e.g. "until=<timestamp>")'
        ),
    ] = []
    force: Annotated[bool, switch("-f", "--force", help="Do not prompt for confirmation")] = False


@command("[OPTIONS]", examples=["shoal container prune", "shoal container prune -f --filter until=24h"])
async def containers(client: Client, flags: PruneFlags) -> None:
    """Remove all stopped containers"""
    if not confirmed("This will remove all stopped containers.", flags):
        return
    request = engine_pb2.PruneContainersRequest(filters=filters(flags.filter))
    answer = await client.containers.PruneContainers(request)
    tell("Deleted Containers:", answer.containers, answer.reclaimed_bytes)


@command("[OPTIONS]", examples=["shoal volume prune", "shoal volume prune -a -f"])
async def volumes(
    client: Client,
    flags: PruneFlags,
    all: Annotated[bool, switch("-a", "--all", help="Remove all unused volumes, not just anonymous ones")] = False,
) -> None:
    """Remove unused local volumes"""
    texts = [each for each in flags.filter if each not in _ALL]
    all = all or len(texts) < len(flags.filter)
    kind = "all" if all else "anonymous"
    if not confirmed(f"This will remove {kind} local volumes not used by at least one container.", flags):
        return
    request = engine_pb2.PruneVolumesRequest(all=all, filters=pair.filters(texts))
    answer = await client.volumes.PruneVolumes(request)
    tell("Deleted Volumes:", answer.volumes, answer.reclaimed_bytes)


@command("[OPTIONS]", examples=["shoal network prune", "shoal network prune -f --filter until=24h"])
async def networks(client: Client, flags: PruneFlags) -> None:
    """Remove all unused networks"""
    if not confirmed("This will remove all custom networks not used by at least one container.", flags):
        return
    request = engine_pb2.PruneLocalNetworksRequest(filters=filters(flags.filter))
    announce("Deleted Networks:", (await client.networks.PruneLocalNetworks(request)).networks)


@command("[OPTIONS]", examples=["shoal image prune", "shoal image prune -a -f --filter until=24h"])
async def images(
    client: Client,
    flags: PruneFlags,
    all: Annotated[bool, switch("-a", "--all", help="Remove all unused images, not just dangling ones")] = False,
) -> None:
    """Remove unused images"""
    texts = [each for each in flags.filter if each not in _DANGLING]
    all = all or _NOT_DANGLING.intersection(flags.filter) != set()
    which = "all images without at least one container associated to them" if all else "all dangling images"
    if not confirmed(f"This will remove {which}.", flags):
        return
    answer = await client.images.PruneImages(engine_pb2.PruneImagesRequest(all=all, filters=filters(texts)))
    tell("Deleted Images:", gone(answer), answer.reclaimed_bytes)


def gone(answer: engine_pb2.PruneImagesResponse) -> list[str]:
    """In docker's words, image by image."""
    return [
        line
        for image in answer.images
        for line in (*(f"untagged: {each}" for each in image.untagged), *(f"deleted: {each}" for each in image.deleted))
    ]


def confirmed(warning: str, flags: PruneFlags) -> bool:
    """Ask a person before something goes. Whoever says no gets what they want, and that is no failure."""
    if flags.force:
        return True
    print(f"WARNING! {warning}\nAre you sure you want to continue? [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def filters(texts: Iterable[str]) -> list[engine_pb2.Filter]:
    """`key=value`, the moment of an `until` as seconds since the epoch, by the clock of whoever asks."""
    found = pair.filters(texts)
    for each in found:
        if each.key == "until":
            seconds, nanos = divmod(moment(each.value, now_ns=time.time_ns()), 10**9)
            each.value = f"{seconds}.{nanos:09d}"
    return found


def tell(title: str, removed: Iterable[str], freed_bytes: int) -> None:
    """In docker's layout."""
    announce(title, removed)
    total(freed_bytes)


def announce(title: str, removed: Iterable[str]) -> None:
    if names := list(removed):
        print("\n".join([title, *names, ""]))


def total(freed_bytes: int) -> None:
    print(f"Total reclaimed space: {words.decimal_size(freed_bytes, 4)}")
