"""Commands that change services, and stay until the cluster is as they say."""

import sys
from collections.abc import Callable
from typing import Annotated

from cli import credentials
from cli.client import Client
from cli.command import Arguments, argument, command
from cli.container.lifecycle import complain, each_in_turn
from cli.service.flags import CreateFlags, RegistryFlags, UpdateFlags, WaitFlags
from cli.service.progress import converge
from cli.service.spec import created, updated
from shoal.errors import Conflict, InvalidArgument, ShoalError
from shoal.v1 import control_pb2, engine_pb2
from shoal.v1.types_pb2 import SERVICE_MODE_REPLICATED, Service, ServiceSpec

# Somebody else may change the same service between our look and our write.
_TRIES = 5
# A registry that takes longer to say a digest is not waited for.
RESOLVE_S = 10.0


@command(
    "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    examples=[
        "shoal service create --name web --replicas 6 -p 8080:80 web:1",
        "shoal service create --name agent --mode global --mount type=bind,src=/var/log,dst=/logs agent:1",
        "shoal service create --name db --constraint node.labels.disk==ssd --reserve-memory 2g db:1",
    ],
    interspersed=False,
)
async def create(
    client: Client,
    flags: CreateFlags,
    registry: RegistryFlags,
    manners: WaitFlags,
    image: Annotated[str, argument()],
    args: Annotated[list[str], argument()] = [],  # noqa: B006
) -> int:
    """Create a new service"""
    request = control_pb2.CreateServiceRequest(spec=created(flags, image, args))
    request.image_digest = await _digest(client, image, registry)
    if registry.with_registry_auth:
        request.credentials.CopyFrom(credentials.find(image).message())
    answer = await client.control.CreateService(request)
    _warn(answer.warnings)
    print(answer.service.meta.id, flush=True)
    return 0 if manners.detach else await converge(client, answer.service, quiet=manners.quiet)


@command(
    "[OPTIONS] SERVICE",
    examples=["shoal service update --image web:2 web", "shoal service update --env-add LEVEL=debug --force web"],
)
async def update(
    client: Client,
    flags: UpdateFlags,
    registry: RegistryFlags,
    manners: WaitFlags,
    service: Annotated[str, argument()],
) -> int:
    """Update a service"""
    if flags.rollback:
        made = await _change(client, service, _previous)
    else:
        made = await _change(client, service, lambda found: updated(found.spec, flags), registry, image=flags.image)
    print(service, flush=True)
    return 0 if manners.detach else await converge(client, made, quiet=manners.quiet)


@command("[OPTIONS] SERVICE", examples=["shoal service rollback web"])
async def rollback(client: Client, manners: WaitFlags, service: Annotated[str, argument()]) -> int:
    """Revert changes to a service's configuration"""
    made = await _change(client, service, _previous)
    print(service, flush=True)
    return 0 if manners.detach else await converge(client, made, quiet=manners.quiet)


@command("SERVICE=REPLICAS [SERVICE=REPLICAS...]", examples=["shoal service scale web=6 db=1"])
async def scale(client: Client, manners: WaitFlags, services: Arguments) -> int:
    """Scale one or multiple replicated services"""
    wanted = [_scale(each) for each in services]
    failed, made = 0, []
    for name, replicas in wanted:
        try:
            made.append(await _change(client, name, lambda found, count=replicas: _scaled(found, count)))  # type: ignore[misc]
        except ShoalError as error:
            failed = complain(error)
            continue
        print(f"{name} scaled to {replicas}", flush=True)
    if not manners.detach:
        for each in made:
            failed = await converge(client, each, quiet=manners.quiet) or failed
    return failed


@command("SERVICE [SERVICE...]", examples=["shoal service rm web"])
async def remove(client: Client, services: Arguments) -> int:
    """Remove one or more services"""

    async def one(service: str) -> None:
        await client.control.RemoveService(control_pb2.RemoveServiceRequest(service=service))

    return await each_in_turn(services, one)


async def _change(
    client: Client,
    name: str,
    change: Callable[[Service], ServiceSpec],
    registry: RegistryFlags | None = None,
    *,
    image: str | None = None,
) -> Service:
    """Look, change and write; anew when somebody else wrote in between. `image`: the one that the user named."""
    digest = await _digest(client, image, registry) if image and registry is not None else ""
    for left in reversed(range(_TRIES)):
        found = (await client.control.GetService(control_pb2.GetServiceRequest(service=name))).service.service
        request = control_pb2.UpdateServiceRequest(
            service=found.meta.id, version=found.meta.version, spec=change(found)
        )
        request.image_digest = digest
        if registry is not None and registry.with_registry_auth:
            request.credentials.CopyFrom(credentials.find(request.spec.task.container.image).message())
        try:
            answer = await client.control.UpdateService(request)
        except Conflict as error:
            if not left or "out of sequence" not in error.message:
                raise
            continue
        _warn(answer.warnings)
        return answer.service
    raise AssertionError("the loop returns or raises")


async def _digest(client: Client, image: str, flags: RegistryFlags) -> str:
    """What the image's registry says that the tag stands for. Empty where it is not asked: of an image that names no
    registry and is here; and where it does not answer, which is no reason not to create the service."""
    if flags.no_resolve_image or "@" in image:
        return ""
    if credentials.registry_of(image) == credentials.DOCKER_IO and await _is_here(client, image):
        return ""
    request = engine_pb2.ResolveImageRequest(reference=image, credentials=credentials.find(image).message())
    try:
        return (await client.images.ResolveImage(request, timeout=RESOLVE_S)).digest
    except ShoalError:  # what is wrong with the name itself, the manager says
        return ""


async def _is_here(client: Client, image: str) -> bool:
    try:
        await client.images.GetImage(engine_pb2.GetImageRequest(reference=image))
    except ShoalError:
        return False
    return True


def _previous(found: Service) -> ServiceSpec:
    if not found.HasField("previous"):
        raise Conflict(f"service {found.spec.name} does not have a previous spec")
    return found.previous


def _scale(text: str) -> tuple[str, int]:
    name, _, replicas = text.partition("=")
    if not name or not replicas.isascii() or not replicas.isdecimal():
        raise InvalidArgument(f"invalid scale specifier '{text}'", hint="write SERVICE=REPLICAS")
    return name, int(replicas)


def _scaled(found: Service, replicas: int) -> ServiceSpec:
    if found.spec.mode != SERVICE_MODE_REPLICATED:
        raise Conflict(f"{found.spec.name}: scale can only be used with replicated mode")
    spec = ServiceSpec.FromString(found.spec.SerializeToString())
    spec.replicas = replicas
    return spec


def _warn(warnings: object) -> None:
    for warning in warnings:  # type: ignore[attr-defined]
        print(f"WARNING: {warning}", file=sys.stderr)
