"""`system prune`: all that nobody uses, noun by noun. Each noun's own `prune` stands in `prune`."""

from typing import Annotated

from cli.client import Client
from cli.command import command, switch
from cli.prune import PruneFlags, announce, confirmed, filters, gone, total
from shoal.errors import ShoalError
from shoal.v1 import build_pb2, engine_pb2


@command("[OPTIONS]", examples=["shoal system prune", "shoal system prune -a --volumes -f"])
async def prune(
    client: Client,
    flags: PruneFlags,
    all: Annotated[bool, switch("-a", "--all", help="Remove all unused images not just dangling ones")] = False,
    volumes: Annotated[bool, switch("--volumes", help="Prune anonymous volumes")] = False,
) -> None:
    """Remove unused data"""
    found = filters(flags.filter)
    timed = any(each.key == "until" for each in found)
    if volumes and timed:
        raise ShoalError('ERROR: The "until" filter is not supported with "--volumes"')
    if not confirmed(warning(all=all, volumes=volumes, builds=not found, chosen=flags.filter), flags):
        return
    freed = 0
    containers = await client.containers.PruneContainers(engine_pb2.PruneContainersRequest(filters=found))
    announce("Deleted Containers:", containers.containers)
    freed += containers.reclaimed_bytes
    networks = await client.networks.PruneLocalNetworks(engine_pb2.PruneLocalNetworksRequest(filters=found))
    announce("Deleted Networks:", networks.networks)
    if volumes:
        pruned = await client.volumes.PruneVolumes(engine_pb2.PruneVolumesRequest(filters=found))
        announce("Deleted Volumes:", pruned.volumes)
        freed += pruned.reclaimed_bytes
    images = await client.images.PruneImages(engine_pb2.PruneImagesRequest(all=all, filters=found))
    announce("Deleted Images:", gone(images))
    freed += images.reclaimed_bytes
    if not found:
        builds = await client.builds.PruneBuilds(build_pb2.PruneBuildsRequest())
        announce("Deleted build cache objects:", builds.steps)
        freed += builds.reclaimed_bytes
    total(freed)


def warning(*, all: bool, volumes: bool, builds: bool, chosen: list[str]) -> str:
    """What goes. What steps of builds left knows neither labels nor the times that filters mean, and stays then."""
    parts = [
        "all stopped containers",
        "all networks not used by at least one container",
        *(["all anonymous volumes not used by at least one container"] if volumes else []),
        "all images without at least one container associated to them" if all else "all dangling images",
        *(["all build cache" if all else "unused build cache"] if builds else []),
    ]
    lines = ["This will remove:", *(f"  - {each}" for each in parts), ""]
    if chosen:
        lines += ["  Items to be pruned will be filtered with:", *(f"  - {each}" for each in sorted(chosen)), ""]
    return "\n".join(lines)
