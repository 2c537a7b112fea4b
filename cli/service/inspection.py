"""`service inspect`: as documents, or for people."""

from typing import Annotated

from cli.client import Client
from cli.command import Arguments, command, flag, switch
from cli.document.service import document
from cli.inspect import each_document
from cli.output import words
from cli.output.table import labels_text
from cli.service.words import mode, port_text
from shoal.errors import InvalidArgument
from shoal.v1 import control_pb2
from shoal.v1.types_pb2 import RestartCondition, ServiceMode, UpdateOrder


@command(
    "[OPTIONS] SERVICE [SERVICE...]",
    examples=["shoal service inspect --pretty web", "shoal service inspect -f '{{.Spec.Mode}}' web"],
)
async def inspect(
    client: Client,
    services: Arguments,
    format: Annotated[str, flag("-f", "--format", help="Format output using a custom template")] = "",
    pretty: Annotated[bool, switch("--pretty", help="Print the information in a human friendly format")] = False,
) -> int:
    """Display detailed information on one or more services"""
    if format and pretty:
        raise InvalidArgument("--format is incompatible with human friendly format")

    async def find(name: str) -> control_pb2.ServiceView:
        return (await client.control.GetService(control_pb2.GetServiceRequest(service=name))).service

    if not pretty:

        async def one(name: str) -> dict[str, object]:
            return document((await find(name)).service)

        return await each_document(services, one, format)
    for at, name in enumerate(services):
        print(("\n" if at else "") + "\n".join(pretty_lines(await find(name))))
    return 0


def pretty_lines(view: control_pb2.ServiceView) -> list[str]:
    """A service for people, in docker's layout."""
    service, spec, task = view.service, view.service.spec, view.service.spec.task
    container = task.container
    lines = ["", f"ID:\t\t{service.meta.id}", f"Name:\t\t{spec.name}"]
    if spec.labels:
        lines += ["Labels:", *(f" {key}={spec.labels[key]}" for key in sorted(spec.labels))]
    lines.append(f"Service Mode:\t{mode(service).capitalize()}")
    if spec.mode == ServiceMode.SERVICE_MODE_REPLICATED:
        lines.append(f" Replicas:\t{spec.replicas} ({view.running} running)")
    placement = []
    if task.placement.constraints:
        placement.append(f" Constraints:\t[{', '.join(task.placement.constraints)}]")
    if task.placement.preferences:
        placement.append(f" Preferences:\t[{', '.join(task.placement.preferences)}]")
    if task.placement.max_per_node:
        placement.append(f" Max Replicas Per Node:\t{task.placement.max_per_node}")
    lines += ["Placement:", *placement] if placement else []
    order = UpdateOrder.Name(spec.update.order).removeprefix("UPDATE_ORDER_").lower().replace("_", "-")
    lines += [
        "UpdateConfig:",
        f" Parallelism:\t{spec.update.parallelism}",
        *([f" Delay:\t\t{words.go_duration(spec.update.delay_ns)}"] if spec.update.delay_ns else []),
        f" Update order:      {order}",
        "RestartPolicy:",
        f" Condition:\t{RestartCondition.Name(task.restart.condition).removeprefix('RESTART_CONDITION_').lower()}",
        f" Delay:\t\t{words.go_duration(task.restart.delay_ns)}",
        "ContainerSpec:",
        f" Image:\t\t{container.image}",
    ]
    if service.image_digest:
        lines.append(f" Digest:\t{service.image_digest}")
    if container.args:
        lines.append(f" Args:\t\t{' '.join(container.args)}")
    if container.env:
        lines.append(f" Env:\t\t{' '.join(container.env)}")
    if container.mounts:
        lines += ["Mounts:", *(f" {each.source or '(anonymous)'} -> {each.target}" for each in container.mounts)]
    if task.limits.nano_cpus or task.limits.memory_bytes:
        lines += ["Resources:", *_limits(view)]
    if task.networks:
        lines.append(f"Networks: {' '.join(each.network for each in task.networks)}")
    endpoint = "dnsrr" if spec.endpoint_mode == 2 else "vip"
    lines.append(f"Endpoint Mode:\t{endpoint}")
    if service.ports:
        lines += ["Ports:", *(f" {port_text(each)}" for each in service.ports)]
    if container.labels:
        lines.append(f"Container Labels: {labels_text(container.labels)}")
    return lines


def _limits(view: control_pb2.ServiceView) -> list[str]:
    limits = view.service.spec.task.limits
    lines = [" Limits:"]
    if limits.nano_cpus:
        lines.append(f"  CPU:\t\t{words.cpus(limits.nano_cpus)}")
    if limits.memory_bytes:
        lines.append(f"  Memory:\t{words.binary_size(limits.memory_bytes)}")
    return lines
