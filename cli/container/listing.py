"""`ps` and `port`: containers as rows."""

import ipaddress
import sys
import time
from collections.abc import Iterable
from typing import Annotated

from cli.client import Client
from cli.command import argument, command, flag, switch
from cli.document.common import ports_of
from cli.everywhere import EveryNode, of_all_nodes
from cli.listing import ListFlags
from cli.output import table, words
from cli.output.table import Row
from cli.parse import pair
from cli.parse.number import integer32
from cli.parse.port import port_and_protocol
from shoal.errors import ShoalError
from shoal.ids import short
from shoal.v1 import engine_pb2, types_pb2
from shoal.v1.engine_pb2 import ContainerSize
from shoal.v1.types_pb2 import Container, MountType, Port

_COLUMNS = ("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names")
_HEADERS = {"ID": "CONTAINER ID"}
_COMMAND_WIDTH = 20
_MOUNT_WIDTH = 15
_HEALTH = {
    types_pb2.HEALTH_STATE_STARTING: "health: starting",
    types_pb2.HEALTH_STATE_HEALTHY: "healthy",
    types_pb2.HEALTH_STATE_UNHEALTHY: "unhealthy",
}
_UNASKED = ContainerSize()
PROTOCOLS = {types_pb2.PORT_PROTOCOL_TCP: "tcp", types_pb2.PORT_PROTOCOL_UDP: "udp"}


@command(
    "[OPTIONS]",
    examples=["shoal ps -a", "shoal ps --filter status=exited -q", "shoal ps --format '{{.Names}}: {{.Status}}'"],
)
async def ls(
    client: Client,
    flags: ListFlags,
    all: Annotated[bool, switch("-a", "--all", help="Show all containers (default shows just running)")] = False,
    last: Annotated[
        int,
        flag(
            "-n", "--last", metavar="int", parse=integer32, help="Show n last created containers (includes all states)"
        ),
    ] = -1,
    latest: Annotated[
        bool, switch("-l", "--latest", help="Show the latest created container (includes all states)")
    ] = False,
    size: Annotated[bool, switch("-s", "--size", help="Display total file sizes")] = False,
    every_node: EveryNode = False,
) -> int:
    """List containers"""
    last = 1 if latest and last < 0 else last
    if flags.quiet and flags.format:
        print("WARNING: Ignoring custom format, because both --format and --quiet are set.", file=sys.stderr)
        flags.format = ""
    request = engine_pb2.ListContainersRequest(
        all=all or last > 0,
        last=max(last, 0),
        filters=pair.filters(flags.filter),
        size=(size and not flags.quiet) or ".Size" in flags.format,
    )
    failed = 0
    if every_node:
        answers, failed = await of_all_nodes(client, lambda calls: calls.containers().ListContainers(request))
    else:
        answers = [("", await client.containers.ListContainers(request))]
    now_ns = time.time_ns()
    untagged = {id for _, answer in answers for id in answer.untagged}
    rows = [
        {
            **row(
                each,
                now_ns=now_ns,
                whole=flags.no_trunc,
                size=answer.sizes[each.meta.id],
                untagged=each.meta.id in untagged,
            ),
            **({"Node": node} if every_node else {}),
        }
        for node, answer in answers
        for each in answer.containers
    ]
    columns = (*(["Node"] if every_node else []), *_COLUMNS, *(["Size"] if size else []))
    print(flags.draw(rows, columns=columns, headers=_HEADERS), end="")
    return failed


@command("CONTAINER [PRIVATE_PORT[/PROTO]]", examples=["shoal port web", "shoal port web 80/tcp"])
async def port(
    client: Client,
    container: Annotated[str, argument()],
    private: Annotated[str, argument()] = "",
) -> None:
    """List port mappings or a specific mapping for the container"""
    wanted = port_and_protocol(private) if private else None
    answer = await client.containers.GetContainer(engine_pb2.GetContainerRequest(container=container))
    published = sorted(answer.container.status.ports, key=lambda each: (each.target, each.protocol))
    if wanted is None:
        for each in published:
            print(f"{each.target}/{PROTOCOLS[each.protocol]} -> {_host_side(each)}")
        return
    found = [each for each in published if (each.target, each.protocol) == wanted]
    if not found:
        number, protocol = wanted
        shown = private if "/" in private else f"{number}/{PROTOCOLS[protocol]}"
        raise ShoalError(f"No public port '{shown}' published for {container}")
    for each in found:
        print(_host_side(each))


def row(
    container: Container, *, now_ns: int, whole: bool, size: ContainerSize = _UNASKED, untagged: bool = False
) -> Row:
    """One container as docker's fields. `untagged`: its image has no longer the name that it was made by."""
    argv = " ".join(f"'{each}'" if " " in each else each for each in container.argv)
    mounts = [each.source or "tmpfs" for each in container.mounts if each.type != MountType.MOUNT_TYPE_TMPFS]
    return {
        "ID": container.meta.id if whole else short(container.meta.id),
        "Image": _image(container, whole=whole, untagged=untagged),
        "Command": words.quoted(argv if whole else words.short(argv, _COMMAND_WIDTH)),
        "CreatedAt": words.local_time(container.meta.created_at_ns),
        "RunningFor": words.ago(container.meta.created_at_ns, now_ns),
        "Status": status(container, now_ns=now_ns),
        "State": state(container),
        "Ports": ports_text(ports_of(container)),
        "Names": container.name,
        "Labels": table.labels_text(container.spec.labels),
        "Label": table.label_method(container.spec.labels),
        "Mounts": ",".join(each if whole else words.short(each, _MOUNT_WIDTH) for each in mounts),
        "LocalVolumes": str(sum(1 for each in container.mounts if each.type == MountType.MOUNT_TYPE_VOLUME)),
        "Networks": ",".join(each.network for each in container.networks),
        "Size": _size(size),
    }


def _image(container: Container, *, whole: bool, untagged: bool) -> str:
    """As it was asked for, or its id where that means another one now; shortly without a digest."""
    name = container.image_id if untagged else container.spec.image
    if whole:
        return name
    return short(name) if short(name) == short(container.image_id) else name.partition("@")[0]


def _size(size: ContainerSize) -> str:
    own = words.decimal_size(size.own_bytes, 3)
    return f"{own} (virtual {words.decimal_size(size.whole_bytes, 3)})" if size.whole_bytes else own


def state(container: Container) -> str:
    """ "running", "exited"…"""
    return types_pb2.ContainerState.Name(container.status.state).removeprefix("CONTAINER_STATE_").lower()


def status(container: Container, *, now_ns: int) -> str:
    """Docker's sentence: "Up 3 minutes", "Exited (137) 2 hours ago"."""
    now = container.status
    up = f"Up {words.span(now_ns - now.started_at_ns)}"
    ended = words.ago(now.finished_at_ns, now_ns)
    if now.state == types_pb2.CONTAINER_STATE_RUNNING:
        health = _HEALTH.get(now.health.state, "")
        return f"{up} ({health})" if health else up
    if now.state == types_pb2.CONTAINER_STATE_PAUSED:
        return f"{up} (Paused)"
    if now.state == types_pb2.CONTAINER_STATE_RESTARTING:
        return f"Restarting ({now.exit_code}) {ended}"
    if now.state == types_pb2.CONTAINER_STATE_DEAD:
        return "Dead"
    if now.state == types_pb2.CONTAINER_STATE_EXITED and now.finished_at_ns:
        return f"Exited ({now.exit_code}) {ended}"
    return "Created"


def ports_text(ports: Iterable[Port]) -> str:
    """Docker's PORTS: neighbours that keep their number become a range."""
    groups: list[list[int | str]] = []  # [address/protocol, first, last]
    open_groups: dict[str, list[int | str]] = {}
    moved = []
    for each in sorted(ports, key=lambda port: (port.target, port.host_address, port.published, port.protocol)):
        protocol = PROTOCOLS[each.protocol]
        if each.published and each.published != each.target:
            moved.append(f"{_host_side(each)}->{each.target}/{protocol}")
            continue
        key = f"{_address(each) if each.published else ''}/{protocol}"
        group = open_groups.get(key)
        if group is not None and group[2] == each.target - 1:
            group[2] = each.target
            continue
        open_groups[key] = [key, each.target, each.target]
        groups.append(open_groups[key])
    return ", ".join([*(_group(str(key), int(first), int(last)) for key, first, last in groups), *moved])


def _group(key: str, first: int, last: int) -> str:
    address, _, protocol = key.rpartition("/")
    numbers = f"{first}-{last}" if first != last else str(first)
    return f"{address}:{numbers}->{numbers}/{protocol}" if address else f"{numbers}/{protocol}"


def _host_side(port: Port) -> str:
    return f"{_address(port)}:{port.published}"


def _address(port: Port) -> str:
    address = port.host_address or "0.0.0.0"
    return f"[{address}]" if ipaddress.ip_address(address).version == 6 else address
