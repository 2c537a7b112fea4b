"""`inspect` of every noun: look each name up, print what was found, tell what was not."""

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any

from cli import network as networks
from cli.client import Client
from cli.command import Arguments, command, flag, switch
from cli.container.lifecycle import complain
from cli.document import container as container_document
from cli.document import image as image_document
from cli.document import network as network_document
from cli.document import node as node_document
from cli.document import service as service_document
from cli.document import task as task_document
from cli.document import volume as volume_document
from cli.output.inspection import render
from shoal.errors import NotFound, PermissionDenied, ShoalError, Unavailable, Unsupported
from shoal.v1 import control_pb2, engine_pb2
from shoal.v1.types_pb2 import MOUNT_TYPE_VOLUME, NETWORK_SCOPE_SWARM, Container

Document = dict[str, Any]
Finder = Callable[[str], Awaitable[Document]]


async def each_document(names: Sequence[str], find: Finder, template: str) -> int:
    """Print the documents of those that are found, as docker does even if it is none; the exit code."""
    failures: list[ShoalError] = []
    documents = []
    for name in names:
        try:
            documents.append(await find(name))
        except ShoalError as error:
            failures.append(error)
    print(render(documents, template), end="", flush=True)
    for failure in failures:
        complain(failure)
    return 1 if failures else 0


@command("[OPTIONS] CONTAINER [CONTAINER...]", examples=["shoal container inspect -f '{{.State.Pid}}' web"])
async def container(
    client: Client,
    containers: Arguments,
    format: Annotated[str, flag("-f", "--format", help="Format output using a custom template")] = "",
    size: Annotated[bool, switch("-s", "--size", help="Display total file sizes")] = False,
) -> int:
    """Display detailed information on one or more containers"""
    return await each_document(containers, _finders(client, size=size)["container"], format)


@command("[OPTIONS] IMAGE [IMAGE...]", examples=["shoal image inspect -f '{{.Config.Cmd}}' web:1"])
async def image(
    client: Client,
    images: Arguments,
    format: Annotated[str, flag("-f", "--format", help="Format output using a custom template")] = "",
) -> int:
    """Display detailed information on one or more images"""
    return await each_document(images, _finders(client)["image"], format)


@command("[OPTIONS] VOLUME [VOLUME...]", examples=["shoal volume inspect -f '{{.Mountpoint}}' data"])
async def volume(
    client: Client,
    volumes: Arguments,
    format: Annotated[str, flag("-f", "--format", help="Format output using a custom template")] = "",
) -> int:
    """Display detailed information on one or more volumes"""
    return await each_document(volumes, _finders(client)["volume"], format)


@command(
    "[OPTIONS] NETWORK [NETWORK...]", examples=["shoal network inspect bridge", "shoal network inspect -v backend"]
)
async def network(
    client: Client,
    networks: Arguments,
    format: Annotated[str, flag("-f", "--format", help="Format output using a custom template")] = "",
    verbose: Annotated[bool, switch("-v", "--verbose", help="Verbose output for diagnostics")] = False,
) -> int:
    """Display detailed information on one or more networks"""
    return await each_document(networks, _finders(client, verbose=verbose)["network"], format)


@command("[OPTIONS] NAME|ID [NAME|ID...]", examples=["shoal inspect web", "shoal inspect --type task web.1"])
async def inspect(
    client: Client,
    names: Arguments,
    format: Annotated[str, flag("-f", "--format", help="Format output using a custom template")] = "",
    size: Annotated[bool, switch("-s", "--size", help="Display total file sizes if the type is container")] = False,
    type: Annotated[str, flag("--type", help="Return JSON for specified type")] = "",
) -> int:
    """Return low-level information on any kind of object"""
    finders = _finders(client, size=size)
    if type and type not in finders:
        raise ShoalError(f'"{type}" is not a valid value for --type', hint=f"use {', '.join(finders)}")

    async def find(name: str) -> Document:
        for kind, finder in finders.items():
            if type in ("", kind):
                try:
                    return await finder(name)
                except NotFound:
                    continue
                except (Unavailable, PermissionDenied, Unsupported):
                    if type or kind not in _OF_THE_CLUSTER:
                        raise
        raise NotFound(f"No such {type or 'object'}: {name}")

    return await each_document(names, find, format)


_OF_THE_CLUSTER = frozenset({"network", "node", "service", "task"})


def _finders(client: Client, *, size: bool = False, verbose: bool = False) -> dict[str, Finder]:
    """By noun, in the order in which docker looks. `size`: of containers, what they take of the disk; `verbose`: of a
    network of the cluster, who is on it."""

    async def one_container(name: str) -> Document:
        answer = await client.containers.GetContainer(engine_pb2.GetContainerRequest(container=name, size=size))
        places = await _places(client, answer.container)
        taken = answer.size if size else None
        return container_document.document(answer.container, answer.layout, size=taken, places=places)

    async def one_image(name: str) -> Document:
        answer = await client.images.GetImage(engine_pb2.GetImageRequest(reference=name))
        return image_document.document(answer.image, answer.folders)

    async def one_volume(name: str) -> Document:
        answer = await client.volumes.GetVolume(engine_pb2.GetVolumeRequest(name=name))
        return volume_document.document(answer.volume)

    async def one_network(name: str) -> Document:
        network = await networks.find(client, name)
        held: Sequence[Container] = ()
        with contextlib.suppress(Unavailable, PermissionDenied):  # a manager's port knows no containers of its own
            held = (await client.containers.ListContainers(engine_pb2.ListContainersRequest())).containers
        cluster = await _cluster(client) if verbose and network.scope == NETWORK_SCOPE_SWARM else None
        return network_document.document(network, held, cluster)

    async def one_node(name: str) -> Document:
        return node_document.document((await client.control.GetNode(control_pb2.GetNodeRequest(node=name))).node)

    async def one_service(name: str) -> Document:
        answer = await client.control.GetService(control_pb2.GetServiceRequest(service=name))
        return service_document.document(answer.service.service)

    async def one_task(name: str) -> Document:
        return task_document.document(await client.control.GetTask(control_pb2.GetTaskRequest(task=name)))

    return {
        "container": one_container,
        "image": one_image,
        "volume": one_volume,
        "network": one_network,
        "node": one_node,
        "service": one_service,
        "task": one_task,
    }


async def _cluster(client: Client) -> network_document.Cluster:
    running = engine_pb2.Filter(key="desired-state", value="running")
    services = (await client.control.ListServices(control_pb2.ListServicesRequest())).services
    tasks = (await client.control.ListTasks(control_pb2.ListTasksRequest(filters=[running]))).tasks
    nodes = (await client.control.ListNodes(control_pb2.ListNodesRequest())).nodes
    return network_document.Cluster([each.service for each in services], tasks, [each.node for each in nodes])


async def _places(client: Client, container: Container) -> dict[str, str]:
    """Where the volumes of a container are on its host; one that is gone is nowhere."""
    places = {}
    for name in [each.source for each in container.mounts if each.type == MOUNT_TYPE_VOLUME]:
        with contextlib.suppress(NotFound):
            answer = await client.volumes.GetVolume(engine_pb2.GetVolumeRequest(name=name))
            places[name] = answer.volume.mountpoint
    return places
