"""`system df`: what takes the host's disk, and what of it a prune would free."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Annotated, NamedTuple

from cli import image as images
from cli.client import Client
from cli.command import command, flag, switch
from cli.container import listing
from cli.listing import Json
from cli.output import table, words
from cli.output.functions import to_json
from cli.output.table import Row
from shoal.errors import InvalidArgument
from shoal.ids import short
from shoal.v1 import engine_pb2
from shoal.v1.engine_pb2 import BuildUsage, ContainerUsage, GetDiskUsageResponse, ImageUsage, VolumeUsage
from shoal.v1.types_pb2 import CONTAINER_STATE_PAUSED, CONTAINER_STATE_RESTARTING, CONTAINER_STATE_RUNNING

_COLUMNS = ("Type", "TotalCount", "Active", "Size", "Reclaimable")
_HEADERS = {
    "Type": "TYPE",
    "TotalCount": "TOTAL",
    "Active": "ACTIVE",
    "Reclaimable": "RECLAIMABLE",
    "SharedSize": "SHARED SIZE",
    "UniqueSize": "UNIQUE SIZE",
    "Containers": "CONTAINERS",
    "Links": "LINKS",
    "CacheType": "CACHE TYPE",
    "LastUsedSince": "LAST USED",
    "UsageCount": "USAGE",
    "Shared": "SHARED",
}
_ACTIVE = (CONTAINER_STATE_RUNNING, CONTAINER_STATE_PAUSED, CONTAINER_STATE_RESTARTING)


class Sum(NamedTuple):
    """One line of the summary. `free_bytes`: what nobody uses just now."""

    kind: str
    total: int
    active: int
    size_bytes: int
    free_bytes: int

    def row(self) -> Row:
        share = f" ({self.free_bytes * 100 // self.size_bytes}%)" if self.size_bytes else ""
        return {
            "Type": self.kind,
            "TotalCount": str(self.total),
            "Active": str(self.active),
            "Size": words.decimal_size(self.size_bytes, 4),
            "Reclaimable": words.decimal_size(self.free_bytes, 4) + share,
        }


@command("[OPTIONS]", examples=["shoal system df", "shoal system df -v", "shoal system df --format json"])
async def df(
    client: Client,
    verbose: Annotated[bool, switch("-v", "--verbose", help="Show detailed information on space usage")] = False,
    format: Annotated[
        str, flag("--format", help="Format output: 'table', 'table TEMPLATE', 'json' or a Go template")
    ] = "",
    json: Json = False,
) -> None:
    """Show disk usage"""
    format = "json" if json else format
    if verbose and format not in ("", "json"):
        raise InvalidArgument("a template cannot show all that -v does", hint="use --format json")
    usage = await client.system.GetDiskUsage(engine_pb2.GetDiskUsageRequest())
    if not verbose:
        rows = [each.row() for each in sums(usage)]
        print(table.draw(rows, columns=_COLUMNS, template=format, headers=_HEADERS), end="")
        return
    sections = detailed(usage, now_ns=time.time_ns())
    if format:
        print(to_json({each.name: list(each.rows) for each in sections}))
        return
    print("\n".join(f"{each.title}\n\n{each.drawn()}" for each in sections), end="")


def sums(usage: GetDiskUsageResponse) -> list[Sum]:
    """What docker counts, as docker counts it: an image is active that has a container, running or not."""
    used = sum(each.image.size_bytes - each.shared_bytes for each in usage.images if each.containers)
    stopped = [each for each in usage.containers if each.container.status.state not in _ACTIVE]
    unused = [each for each in usage.volumes if not each.users]
    own = [each.size_bytes for each in usage.builds if not each.shared]
    return [
        Sum(
            "Images",
            len(usage.images),
            sum(each.containers > 0 for each in usage.images),
            usage.layer_bytes,
            usage.layer_bytes - used,
        ),
        Sum(
            "Containers",
            len(usage.containers),
            len(usage.containers) - len(stopped),
            sum(each.own_bytes for each in usage.containers),
            sum(each.own_bytes for each in stopped),
        ),
        Sum(
            "Local Volumes",
            len(usage.volumes),
            len(usage.volumes) - len(unused),
            sum(each.size_bytes for each in usage.volumes),
            sum(each.size_bytes for each in unused),
        ),
        Sum("Build Cache", len(usage.builds), 0, sum(own), sum(own)),
    ]


class Section(NamedTuple):
    """One table of `-v`; `name` is that of the rows as JSON."""

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Row]
    key: str = "ID"

    def drawn(self) -> str:
        headers = {**_HEADERS, "ID": self.key, **({"Name": "VOLUME NAME"} if self.name == "Volumes" else {})}
        return table.draw(self.rows, columns=self.columns, headers=headers)


def detailed(usage: GetDiskUsageResponse, *, now_ns: int) -> list[Section]:
    builds = words.decimal_size(sum(each.size_bytes for each in usage.builds if not each.shared), 4)
    return [
        Section(
            "Images",
            "Images space usage:",
            ("Repository", "Tag", "ID", "CreatedSince", "Size", "SharedSize", "UniqueSize", "Containers"),
            [row for each in usage.images for row in _image(each, now_ns)],
            "IMAGE ID",
        ),
        Section(
            "Containers",
            "Containers space usage:",
            ("ID", "Image", "Command", "LocalVolumes", "Size", "RunningFor", "Status", "Names"),
            list(_containers(usage.containers, now_ns)),
            "CONTAINER ID",
        ),
        Section(
            "Volumes",
            "Local Volumes space usage:",
            ("Name", "Links", "Size"),
            [_volume(each) for each in usage.volumes],
        ),
        Section(
            "BuildCache",
            f"Build cache usage: {builds}",
            ("ID", "CacheType", "Size", "CreatedSince", "LastUsedSince", "Shared", "Description"),
            [_build(each, now_ns) for each in usage.builds],
            "CACHE ID",
        ),
    ]


def _image(usage: ImageUsage, now_ns: int) -> list[Row]:
    own = usage.image.size_bytes - usage.shared_bytes
    more = {
        "SharedSize": words.decimal_size(usage.shared_bytes, 4),
        "UniqueSize": words.decimal_size(own, 4),
        "Containers": str(usage.containers),
    }
    return [{**row, **more} for row in images.rows(usage.image, now_ns=now_ns, whole=False)]


def _containers(usages: Iterable[ContainerUsage], now_ns: int) -> Iterable[Row]:
    for each in usages:
        row = listing.row(each.container, now_ns=now_ns, whole=False, untagged=each.untagged)
        yield {**row, "Size": words.decimal_size(each.own_bytes, 3)}


def _volume(usage: VolumeUsage) -> Row:
    return {
        "Name": usage.volume.name,
        "Links": str(usage.users),
        "Size": words.decimal_size(usage.size_bytes, 4),
    }


def _build(usage: BuildUsage, now_ns: int) -> Row:
    return {
        "ID": short(usage.id),
        "CacheType": usage.kind or "regular",
        "Size": words.decimal_size(usage.size_bytes, 4),
        "CreatedSince": words.ago(usage.made_at_ns, now_ns),
        "LastUsedSince": words.ago(usage.used_at_ns, now_ns),
        "Shared": str(usage.shared).lower(),
        "Description": usage.title,
    }
