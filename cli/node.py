"""Commands on nodes."""

from typing import Annotated

from cli.client import Client
from cli.command import Arguments, argument, command, flag, switch
from cli.container.lifecycle import complain, each_in_turn
from cli.document.node import document
from cli.inspect import each_document
from cli.listing import ListFlags
from cli.output import words
from cli.output.table import Row, labels_text
from cli.parse import pair
from cli.service.listing import print_tasks
from shoal.errors import InvalidArgument, NotFound, ShoalError
from shoal.v1 import control_pb2
from shoal.v1.types_pb2 import ROLE_MANAGER, ROLE_WORKER, Availability, Node, NodeState, Role

_COLUMNS = ("ID", "Hostname", "Status", "Availability", "ManagerStatus", "EngineVersion")
_ROLES = {"worker": ROLE_WORKER, "manager": ROLE_MANAGER}


@command("[OPTIONS]", examples=["shoal node ls", "shoal node ls --filter role=worker -q"])
async def ls(client: Client, flags: ListFlags) -> None:
    """List nodes in the cluster"""
    answer = await client.control.ListNodes(control_pb2.ListNodesRequest(filters=pair.filters(flags.filter)))
    own = (await _find(client, "self")).node.meta.id
    rows = [row(each, own=own, marked=not (flags.quiet or flags.json or flags.format)) for each in answer.nodes]
    print(flags.draw(rows, columns=_COLUMNS), end="")


def row(view: control_pb2.NodeView, *, own: str, marked: bool) -> Row:
    """A node as docker's fields; `marked` puts a star behind the id of the node that one asks on."""
    node = view.node
    itself = node.meta.id == own
    return {
        "ID": f"{node.meta.id} *" if itself and marked else node.meta.id,
        "Self": str(itself).lower(),
        "Hostname": node.description.hostname,
        "Status": word(NodeState.Name(node.status.state)),
        "Availability": word(Availability.Name(node.spec.availability)),
        "ManagerStatus": view.manager_status,
        "EngineVersion": node.description.agent_version,
        "Address": node.description.address,
        "Role": word(Role.Name(node.spec.role)).lower(),
    }


def word(name: str) -> str:
    """The last word of an enum's name: NODE_STATE_READY is Ready."""
    return name.rpartition("_")[2].capitalize()


@command("[OPTIONS] [NODE...]", examples=["shoal node ps", "shoal node ps n2 --filter desired-state=running"])
async def ps(
    client: Client,
    flags: ListFlags,
    nodes: Annotated[list[str], argument()] = [],  # noqa: B006
    no_resolve: Annotated[bool, switch("--no-resolve", help="Do not map IDs to Names")] = False,
) -> int:
    """List tasks running on one or more nodes, defaults to current node"""
    return await print_tasks(client, flags, "node", nodes or ["self"], no_resolve=no_resolve)


@command("[OPTIONS] self|NODE [NODE...]", examples=["shoal node inspect --pretty self"])
async def inspect(
    client: Client,
    nodes: Arguments,
    format: Annotated[str, flag("-f", "--format", help="Format output using a custom template")] = "",
    pretty: Annotated[bool, switch("--pretty", help="Print the information in a human friendly format")] = False,
) -> int:
    """Display detailed information on one or more nodes"""
    if format and pretty:
        raise InvalidArgument("--format is incompatible with human friendly format")
    if not pretty:

        async def one(name: str) -> dict[str, object]:
            return document(await _find(client, name))

        return await each_document(nodes, one, format)
    for at, name in enumerate(nodes):
        print(("\n" if at else "") + "\n".join(pretty_lines(await _find(client, name))))
    return 0


def pretty_lines(view: control_pb2.NodeView) -> list[str]:
    """A node for people, in docker's layout."""
    node, described = view.node, view.node.description
    message = f" ({node.status.message})" if node.status.message else ""
    lines = [f"ID:\t\t\t{node.meta.id}"]
    if node.spec.labels:
        lines += ["Labels:", *(f" - {key}={node.spec.labels[key]}" for key in sorted(node.spec.labels))]
    lines += [
        f"Hostname:              \t{described.hostname}",
        f"Joined at:             \t{words.rfc3339(node.meta.created_at_ns)}",
        "Status:",
        f" State:\t\t\t{word(NodeState.Name(node.status.state))}{message}",
        f" Availability:         \t{word(Availability.Name(node.spec.availability))}",
        f" Address:\t\t{described.address}",
    ]
    if view.manager_status:
        lines += ["Manager Status:", f" {view.manager_status}"]
    lines += [
        "Platform:",
        f" Operating System:\t{described.os}",
        f" Architecture:\t\t{described.architecture}",
        "Resources:",
        f" CPUs:\t\t\t{words.cpus(described.resources.nano_cpus)}",
        f" Memory:\t\t{words.binary_size(described.resources.memory_bytes)}",
        f"Engine Version:\t\t{described.agent_version}",
    ]
    if described.engine_labels:
        lines.append(f"Engine Labels:\t\t{labels_text(described.engine_labels)}")
    return lines


@command(
    "[OPTIONS] NODE", examples=["shoal node update --availability drain n2", "shoal node update --label-add z=a n1"]
)
async def update(
    client: Client,
    node: Annotated[str, argument()],
    availability: Annotated[
        str, flag("--availability", help='Availability of the node ("active", "pause", "drain")')
    ] = "",
    role: Annotated[str, flag("--role", help='Role of the node ("worker", "manager")')] = "",
    label_add: Annotated[
        list[str], flag("--label-add", metavar="list", parse=pair.label, help="Add or update a node label")
    ] = [],  # noqa: B006
    label_rm: Annotated[list[str], flag("--label-rm", metavar="list", help="Remove a node label if exists")] = [],  # noqa: B006
) -> None:
    """Update a node"""

    found = (await _find(client, node)).node
    spec = found.spec
    if availability:
        spec.availability = parse_availability(availability)
    if role:
        if role.lower() not in _ROLES:
            raise InvalidArgument(f'invalid role "{role}", only worker and manager are supported')
        spec.role = _ROLES[role.lower()]
    for key in label_rm:
        if key not in spec.labels:
            raise NotFound(f"key {key} doesn't exist in node's labels")
        del spec.labels[key]
    spec.labels.update(pair.labels(label_add))
    await _write(client, found)
    print(node)


def parse_availability(text: str) -> Availability.ValueType:
    """Raises InvalidArgument for a word that is none."""
    name = f"AVAILABILITY_{text.upper()}"
    if text.lower() not in ("active", "pause", "drain"):
        raise InvalidArgument(f'invalid availability "{text}", only active, pause and drain are supported')
    return Availability.Value(name)


@command("[OPTIONS] NODE [NODE...]", examples=["shoal node rm n3", "shoal node rm --force n3"])
async def remove(
    client: Client,
    nodes: Arguments,
    force: Annotated[bool, switch("-f", "--force", help="Force remove a node from the swarm")] = False,
) -> int:
    """Remove one or more nodes from the cluster"""

    async def one(node: str) -> None:
        await client.control.RemoveNode(control_pb2.RemoveNodeRequest(node=node, force=force))

    return await each_in_turn(nodes, one)


@command("NODE [NODE...]", examples=["shoal node promote n2"])
async def promote(client: Client, nodes: Arguments) -> int:
    """Promote one or more nodes to manager"""
    return await _become(client, nodes, ROLE_MANAGER, "promoted to a manager in the swarm")


@command("NODE [NODE...]", examples=["shoal node demote n2"])
async def demote(client: Client, nodes: Arguments) -> int:
    """Demote one or more nodes from manager"""
    return await _become(client, nodes, ROLE_WORKER, "demoted in the swarm")


async def _become(client: Client, nodes: list[str], role: Role.ValueType, done: str) -> int:
    failed = 0
    for name in nodes:
        try:
            node = (await _find(client, name)).node
            if node.spec.role == role:
                print(f"Node {name} is already a {word(Role.Name(role)).lower()}.")
                continue
            node.spec.role = role
            await _write(client, node)
        except ShoalError as error:
            failed = complain(error)
        else:
            print(f"Node {name} {done}.")
    return failed


async def _write(client: Client, node: Node) -> None:
    """Put a node's changed spec in place of the one that was read."""
    request = control_pb2.UpdateNodeRequest(node=node.meta.id, version=node.meta.version, spec=node.spec)
    await client.control.UpdateNode(request)


async def _find(client: Client, name: str) -> control_pb2.NodeView:
    return (await client.control.GetNode(control_pb2.GetNodeRequest(node=name))).node
