"""Commands on networks. A bridge belongs to one host and is its agent's; an overlay is the cluster's.

Lists show both; a host that is no manager shows its own and what it was told of the cluster's.
"""

from collections.abc import Callable, Container, Iterable, Sequence
from typing import TYPE_CHECKING, Annotated

from cli.client import Client
from cli.command import Arguments, argument, command, flag, switch
from cli.container.lifecycle import each_in_turn
from cli.everywhere import EveryNode, of_all_nodes
from cli.listing import ListFlags
from cli.output import table, words
from cli.output.table import Row
from cli.parse import pair, process
from cli.parse.number import natural
from shoal.errors import Conflict, InvalidArgument, NotFound, PermissionDenied, ShoalError, Unavailable, Unsupported
from shoal.ids import short
from shoal.v1 import control_pb2, engine_pb2
from shoal.v1.types_pb2 import NETWORK_SCOPE_SWARM, Network, NetworkAttachment, NetworkSpec

if TYPE_CHECKING:
    from cli.calls import Calls

_COLUMNS = ("ID", "Name", "Driver", "Scope")
_HEADERS = {"ID": "NETWORK ID"}
_FILTERS = frozenset({"id", "name", "driver", "scope", "label", "type", "dangling"})
_YES, _NO = ("true", "1"), ("false", "0")
_WORDS = {"type": ("builtin", "custom"), "dangling": (*_YES, *_NO)}
_BUILT_IN = ("bridge", "host", "none")
_DRIVERS, _OURS = ("bridge", "overlay"), "use bridge or overlay"
_MTU = "com.docker.network.driver.mtu"
_DOCKERS_DRIVERS = ("host", "ipvlan", "macvlan", "null")


@command(
    "[OPTIONS] NETWORK",
    examples=["shoal network create backend", "shoal network create -d overlay --subnet 10.9.0.0/16 app"],
)
async def create(
    client: Client,
    network: Annotated[str, argument()],
    driver: Annotated[str, flag("-d", "--driver", help="Driver to manage the Network: bridge or overlay")] = "bridge",
    subnet: Annotated[
        list[str], flag("--subnet", metavar="strings", help="Subnet in CIDR format that represents a network segment")
    ] = [],  # noqa: B006
    gateway: Annotated[
        str, flag("--gateway", parse=process.ipv4_address, late=True, help="IPv4 Gateway for the subnet")
    ] = "",
    ip_range: Annotated[str, flag("--ip-range", help="Allocate container ip from a sub-range")] = "",
    internal: Annotated[bool, switch("--internal", help="Restrict external access to the network")] = False,
    attachable: Annotated[bool, switch("--attachable", help="Enable manual container attachment")] = False,
    label: Annotated[
        list[str], flag("--label", metavar="list", parse=pair.label, help="Set metadata on a network")
    ] = [],  # noqa: B006
    opt: Annotated[list[str], flag("-o", "--opt", metavar="map", help="Set driver specific options")] = [],  # noqa: B006
) -> None:
    """Create a network"""
    if driver in _DOCKERS_DRIVERS:
        raise Unsupported(f"network driver {driver} is not supported yet", hint=_OURS)
    if driver not in _DRIVERS:
        raise NotFound(f'plugin "{driver}" not found', hint=_OURS)
    if len(subnet) > 1:
        raise Unsupported("several subnets for one network are not supported yet")
    if attachable and driver == "bridge":
        raise InvalidArgument("--attachable is for overlays", hint="containers attach to a bridge anyway")
    if (gateway or ip_range) and driver == "overlay":
        raise Unsupported("--gateway and --ip-range of an overlay are not supported yet", hint="give it a --subnet")
    if (gateway or ip_range) and not subnet:
        raise InvalidArgument("every ip-range or gateway must have a corresponding subnet")
    spec = NetworkSpec(
        name=network,
        driver=driver,
        labels=pair.labels(label),
        subnet=subnet[0] if subnet else "",
        gateway=gateway,
        ip_range=ip_range,
        internal=internal,
        attachable=attachable,
        mtu=mtu(opt, driver),
    )
    if driver == "overlay":
        made = (await client.control.CreateNetwork(control_pb2.CreateNetworkRequest(spec=spec))).network
    else:
        made = (await client.networks.CreateLocalNetwork(engine_pb2.CreateLocalNetworkRequest(spec=spec))).network
    print(made.meta.id)


def mtu(options: Iterable[str], driver: str) -> int:
    """The one of docker's options that we have. Raises InvalidArgument, Unsupported for any other."""
    given = pair.options(options, "option")
    for name in given:
        if name != _MTU or driver != "bridge":
            raise Unsupported(
                f"option {name} of a network with driver {driver} is not supported yet", hint=f"bridges have {_MTU}"
            )
    return natural(given.get(_MTU, "0"))


@command("[OPTIONS]", examples=["shoal network ls", "shoal network ls -A", "shoal network ls --filter driver=overlay"])
async def ls(client: Client, flags: ListFlags, every_node: EveryNode = False) -> int:
    """List networks"""
    filters, failed = pair.filters(flags.filter), 0
    _check(filters)
    if every_node:
        answers, failed = await of_all_nodes(client, of_host)
        cluster = [each for each in await _of_cluster(client) if each.scope == NETWORK_SCOPE_SWARM]
        local = [(name, [each for each in found if each.scope != NETWORK_SCOPE_SWARM]) for name, found in answers]
        wanted = [("", cluster), *local]
    else:
        wanted = [("", await all_networks(client))]
    used = await _used(client, every_node=every_node) if any(each.key == "dangling" for each in filters) else set()
    rows = [
        {**row(each, whole=flags.no_trunc), **({"Node": node} if every_node else {})}
        for node, networks in wanted
        for each in sorted(networks, key=lambda each: each.spec.name)
        if _matches(each, filters, used)
    ]
    columns = (*(["Node"] if every_node else []), *_COLUMNS)
    print(flags.draw(rows, columns=columns, headers=_HEADERS), end="")
    return failed


def _check(filters: list[engine_pb2.Filter]) -> None:
    for each in filters:
        if each.key not in _FILTERS:
            raise ShoalError(f"invalid filter '{each.key}'", hint=f"known are {', '.join(sorted(_FILTERS))}")
        if each.key in _WORDS and each.value not in _WORDS[each.key]:
            hint = f"it is {' or '.join(_WORDS[each.key])}"
            raise ShoalError(f"invalid filter '{each.key}={each.value}'", hint=hint)


async def _used(client: Client, *, every_node: bool) -> set[str]:
    """Ids of the networks that a running container is on."""

    async def users(calls: "Calls") -> set[str]:
        running = (await calls.containers().ListContainers(engine_pb2.ListContainersRequest())).containers
        return {address.network_id for each in running for address in each.status.addresses}

    answers = (await of_all_nodes(client, users))[0] if every_node else [("", await users(client.calls))]
    return {each for _, used in answers for each in used}


async def of_host(calls: "Calls") -> Sequence[Network]:
    """Those of a host, and of the cluster's those that it takes part in."""
    return (await calls.networks().ListLocalNetworks(engine_pb2.ListLocalNetworksRequest())).networks


async def all_networks(client: Client) -> list[Network]:
    """Those of the host and those of the cluster, each once; without the latter where no manager answers."""
    found = {each.meta.id: each for each in await _of_cluster(client)}
    try:
        local = await of_host(client.calls)
    except Unavailable:
        if not found:
            raise
        return list(found.values())
    for each in local:
        found.setdefault(each.meta.id, each)
    return list(found.values())


async def _of_cluster(client: Client) -> Iterable[Network]:
    try:
        return (await client.control.ListNetworks(control_pb2.ListNetworksRequest())).networks
    except (Unavailable, Conflict, PermissionDenied, Unsupported):  # no manager here: its own networks are an answer
        return ()


async def find(client: Client, name: str) -> Network:
    """By name, id or unique prefix of an id. Raises NotFound or Conflict."""
    known = await all_networks(client)
    for exact in (
        [each for each in known if each.meta.id == name],
        [each for each in known if each.spec.name == name],
        [each for each in known if name and each.meta.id.startswith(name)],
    ):
        if len(exact) == 1:
            return exact[0]
        if exact:
            raise Conflict(f"network {name} is ambiguous ({len(exact)} matches found)", hint="give an id")
    raise NotFound(f"No such network: {name}")


async def _is_there(client: Client, name: str) -> bool:
    try:
        await find(client, name)
    except NotFound:
        return False
    return True


def row(network: Network, *, whole: bool) -> Row:
    """A network as docker's fields."""
    return {
        "ID": network.meta.id if whole else short(network.meta.id),
        "Name": network.spec.name,
        "Driver": network.spec.driver,
        "Scope": scope(network),
        "CreatedAt": words.local_time(network.meta.created_at_ns),
        "Internal": str(network.spec.internal).lower(),
        "IPv4": "true",
        "IPv6": "false",
        "Labels": table.labels_text(network.spec.labels),
        "Label": table.label_method(network.spec.labels),
    }


def scope(network: Network) -> str:
    """ "swarm" or "local"."""
    return "swarm" if network.scope == NETWORK_SCOPE_SWARM else "local"


def _matches(network: Network, filters: list[engine_pb2.Filter], used: Container[str]) -> bool:
    """Docker's rule: within a key any may match, every key must."""
    built_in = network.spec.name in _BUILT_IN
    facts: dict[str, Callable[[str], bool]] = {
        "id": lambda value: network.meta.id.startswith(value),
        "name": lambda value: value in network.spec.name,
        "driver": lambda value: network.spec.driver == value,
        "scope": lambda value: scope(network) == value,
        "label": lambda value: _has_label(network, value),
        "type": lambda value: (value == "builtin") == built_in,
        "dangling": lambda value: (value in _YES) == (not built_in and network.meta.id not in used),
    }
    keys = {each.key for each in filters}
    return all(any(facts[key](each.value) for each in filters if each.key == key) for key in keys)


def _has_label(network: Network, text: str) -> bool:
    key, equals, value = text.partition("=")
    return key in network.spec.labels and (not equals or network.spec.labels[key] == value)


@command("[OPTIONS] NETWORK [NETWORK...]", examples=["shoal network rm backend"])
async def remove(
    client: Client,
    networks: Arguments,
    force: Annotated[bool, switch("-f", "--force", help="Do not error if the network does not exist")] = False,
) -> int:
    """Remove one or more networks"""

    async def one(name: str) -> None:
        network = await find(client, name)
        if network.scope == NETWORK_SCOPE_SWARM:
            await client.control.RemoveNetwork(control_pb2.RemoveNetworkRequest(network=network.meta.id))
        else:
            request = engine_pb2.RemoveLocalNetworkRequest(network=network.meta.id)
            await client.networks.RemoveLocalNetwork(request)

    return await each_in_turn([each for each in networks if not force or await _is_there(client, each)], one)


@command(
    "[OPTIONS] NETWORK CONTAINER",
    examples=[
        "shoal network connect backend web",
        "shoal network connect --alias db --ip 10.9.0.7 backend web",
        "shoal network connect --link mysql:db backend web",
    ],
)
async def connect(
    client: Client,
    network: Annotated[str, argument()],
    container: Annotated[str, argument()],
    alias: Annotated[
        list[str], flag("--alias", metavar="strings", help="Add network-scoped alias for the container")
    ] = [],  # noqa: B006
    ip: Annotated[
        str, flag("--ip", parse=process.ipv4_address, late=True, help='IPv4 address (e.g., "172.30.100.104")')
    ] = "",
    link: Annotated[
        list[str], flag("--link", metavar="list", parse=process.link, help="Add link to another container")
    ] = [],  # noqa: B006
) -> None:
    """Connect a container to a network"""
    attachment = NetworkAttachment(network=network, aliases=alias, address=ip, links=link)
    request = engine_pb2.ConnectContainerRequest(container=container, attachment=attachment)
    await client.containers.ConnectContainer(request)


@command("[OPTIONS] NETWORK CONTAINER", examples=["shoal network disconnect backend web"])
async def disconnect(
    client: Client,
    network: Annotated[str, argument()],
    container: Annotated[str, argument()],
    force: Annotated[bool, switch("-f", "--force", help="Force the container to disconnect from a network")] = False,
) -> None:
    """Disconnect a container from a network"""
    if force:  # docker looks for what a container left behind that is gone; ours leave nothing
        try:
            await client.containers.GetContainer(engine_pb2.GetContainerRequest(container=container))
        except NotFound as error:
            raise NotFound(f"endpoint {container} not found") from error
    request = engine_pb2.DisconnectContainerRequest(container=container, network=network)
    await client.containers.DisconnectContainer(request)
