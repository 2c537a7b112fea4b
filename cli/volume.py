"""Commands on volumes."""

from typing import Annotated

from cli.client import Client
from cli.command import Arguments, argument, command, flag, switch
from cli.container.lifecycle import each_in_turn
from cli.everywhere import EveryNode, of_all_nodes
from cli.listing import ListFlags
from cli.output import table
from cli.output.table import Row
from cli.parse import pair
from shoal.errors import Conflict, NotFound
from shoal.v1 import engine_pb2
from shoal.v1.types_pb2 import Volume

_COLUMNS = ("Driver", "Name")
_HEADERS = {"Name": "VOLUME NAME"}


@command("[OPTIONS] [VOLUME]", examples=["shoal volume create data", "shoal run -v data:/data busybox ls /data"])
async def create(
    client: Client,
    volume: Annotated[str, argument()] = "",
    name: Annotated[str, flag("--name", help="Specify volume name", hidden=True)] = "",
    label: Annotated[
        list[str], flag("--label", metavar="list", parse=pair.label, help="Set metadata for a volume")
    ] = [],  # noqa: B006
    driver: Annotated[str, flag("-d", "--driver", help="Specify volume driver name")] = "local",
    opt: Annotated[list[str], flag("-o", "--opt", metavar="map", help="Set driver specific options")] = [],  # noqa: B006
) -> None:
    """Create a volume"""
    if name and volume:
        raise Conflict("conflicting options: cannot specify a volume-name through both --name and as a positional arg")
    if driver != "local":
        raise NotFound(f'create {volume or name}: volume driver "{driver}" not found', hint="use local")
    request = engine_pb2.CreateVolumeRequest(
        name=volume or name, labels=pair.labels(label), options=pair.options(opt, "option")
    )
    print((await client.volumes.CreateVolume(request)).volume.name)


@command("[OPTIONS]", examples=["shoal volume ls", "shoal volume ls --filter dangling=true -q"])
async def ls(client: Client, flags: ListFlags, every_node: EveryNode = False) -> int:
    """List volumes"""
    request, failed = engine_pb2.ListVolumesRequest(filters=pair.filters(flags.filter)), 0
    if every_node:
        answers, failed = await of_all_nodes(client, lambda calls: calls.volumes().ListVolumes(request))
    else:
        answers = [("", await client.volumes.ListVolumes(request))]
    rows = [
        {**row(each), **({"Node": node} if every_node else {})}
        for node, answer in answers
        for each in sorted(answer.volumes, key=lambda each: each.name)
    ]
    columns = (*(["Node"] if every_node else []), *_COLUMNS)
    print(flags.draw(rows, columns=columns, key="Name", headers=_HEADERS), end="")
    return failed


def row(volume: Volume) -> Row:
    """A volume as docker's fields."""
    return {
        "Name": volume.name,
        "Driver": volume.driver or "local",
        "Scope": "local",
        "Mountpoint": volume.mountpoint,
        # docker measures them for `system df` alone
        "Links": "N/A",
        "Size": "N/A",
        # of volumes of a cluster, which there are none of
        "Availability": "N/A",
        "Group": "N/A",
        "Status": "N/A",
        "Labels": table.labels_text(volume.labels),
        "Label": table.label_method(volume.labels),
    }


@command("[OPTIONS] VOLUME [VOLUME...]", examples=["shoal volume rm data"])
async def remove(
    client: Client,
    volumes: Arguments,
    force: Annotated[bool, switch("-f", "--force", help="Force the removal of one or more volumes")] = False,
) -> int:
    """Remove one or more volumes"""

    async def one(volume: str) -> None:
        await client.volumes.RemoveVolume(engine_pb2.RemoveVolumeRequest(name=volume, force=force))

    return await each_in_turn(volumes, one, missing_is_fine=force)
