"""The flags of `service create` and `service update`.

What is one value is the same for both (`OneFlags`): not given, it is None and nothing changes. What is a list is
given whole to `create`, and added to or taken from by `update`.
"""

import shlex
from typing import Annotated, Any

from cli.command import Flags, flag, switch
from cli.container.flags import Ports
from cli.container.health import HealthFlags
from cli.container.listing import PROTOCOLS
from cli.parse import mount as mounting  # flags have the names of their parsers: by module, they differ
from cli.parse import pair, process, size
from cli.parse.number import natural
from cli.parse.port import port_and_protocol, service_ports
from cli.service.isolation import CreateIsolationFlags, IsolationFlags, UpdateIsolationFlags
from shoal.duration import duration
from shoal.errors import InvalidArgument
from shoal.signals import signal_number
from shoal.v1.types_pb2 import (
    ENDPOINT_MODE_DNSRR,
    ENDPOINT_MODE_VIP,
    RESTART_CONDITION_ANY,
    RESTART_CONDITION_NONE,
    RESTART_CONDITION_ON_FAILURE,
    UPDATE_ORDER_START_FIRST,
    UPDATE_ORDER_STOP_FIRST,
    Mount,
    NetworkAttachment,
    Ulimit,
)

_CONDITIONS = {
    "none": RESTART_CONDITION_NONE,
    "on-failure": RESTART_CONDITION_ON_FAILURE,
    "any": RESTART_CONDITION_ANY,
}
_ORDERS = {"stop-first": UPDATE_ORDER_STOP_FIRST, "start-first": UPDATE_ORDER_START_FIRST}
_ENDPOINTS = {"vip": ENDPOINT_MODE_VIP, "dnsrr": ENDPOINT_MODE_DNSRR}


class Words(list[str]):
    """A command line taken apart."""


def _words(text: str) -> Words:
    try:
        return Words(shlex.split(text))
    except ValueError as error:
        raise InvalidArgument(f"cannot be read as a command: {error}") from error


def _signal(text: str) -> str:
    """As it was given; an empty one is the image's."""
    if text:
        signal_number(text)
    return text


def _one_of(known: dict[str, int]):  # type: ignore[no-untyped-def]  # a parser, for `flag`
    def parse(text: str) -> int:
        if text.lower() not in known:
            raise InvalidArgument(f'"{text}" is unknown', hint=f"use one of {', '.join(known)}")
        return known[text.lower()]

    return parse


def _either(*names: str, help: str) -> Any:
    """A switch that can also be taken back (`--init=false`); not given, it is None."""
    return switch(*names, negative=f"--no-{names[-1].removeprefix('--')}", help=help)


class OneFlags(HealthFlags, IsolationFlags):
    """What is one value."""

    replicas: Annotated[int | None, flag("--replicas", metavar="uint", parse=natural, help="Number of tasks")] = None
    replicas_max_per_node: Annotated[
        int | None,
        flag(
            "--replicas-max-per-node",
            metavar="uint",
            parse=natural,
            help="Maximum number of tasks per node (default 0 = unlimited)",
        ),
    ] = None
    entrypoint: Annotated[
        Words | None,
        flag("--entrypoint", metavar="command", parse=_words, help="Overwrite the default ENTRYPOINT of the image"),
    ] = None
    hostname: Annotated[str | None, flag("--hostname", help="Container hostname")] = None
    user: Annotated[str | None, flag("-u", "--user", help="Username or UID (format: <name|uid>[:<group|gid>])")] = None
    workdir: Annotated[str | None, flag("-w", "--workdir", help="Working directory inside the container")] = None
    init: Annotated[
        bool | None, _either("--init", help="Use an init inside each service container to forward signals")
    ] = None
    read_only: Annotated[
        bool | None, _either("--read-only", help="Mount the container's root filesystem as read only")
    ] = None
    tty: Annotated[bool | None, _either("-t", "--tty", help="Allocate a pseudo-TTY")] = None
    stop_signal: Annotated[
        str | None, flag("--stop-signal", parse=_signal, late=True, help="Signal to stop the container")
    ] = None
    stop_grace_period: Annotated[
        int | None,
        flag(
            "--stop-grace-period",
            metavar="duration",
            parse=duration,
            help="Time to wait before force killing a container (default 10s)",
        ),
    ] = None
    limit_cpu: Annotated[int | None, flag("--limit-cpu", metavar="decimal", parse=size.cpus, help="Limit CPUs")] = None
    limit_memory: Annotated[
        int | None, flag("--limit-memory", metavar="bytes", parse=size.size, help="Limit Memory")
    ] = None
    limit_pids: Annotated[
        int | None,
        flag("--limit-pids", metavar="int", parse=natural, help="Limit maximum number of processes (0 = unlimited)"),
    ] = None
    reserve_cpu: Annotated[
        int | None, flag("--reserve-cpu", metavar="decimal", parse=size.cpus, help="Reserve CPUs")
    ] = None
    reserve_memory: Annotated[
        int | None, flag("--reserve-memory", metavar="bytes", parse=size.size, help="Reserve Memory")
    ] = None
    restart_condition: Annotated[
        int | None,
        flag(
            "--restart-condition",
            parse=_one_of(_CONDITIONS),
            late=True,
            help='Restart when condition is met ("none", "on-failure", "any") (default "any")',
        ),
    ] = None
    restart_delay: Annotated[
        int | None,
        flag("--restart-delay", metavar="duration", parse=duration, help="Delay between restart attempts (default 5s)"),
    ] = None
    restart_max_attempts: Annotated[
        int | None,
        flag(
            "--restart-max-attempts", metavar="uint", parse=natural, help="Maximum number of restarts before giving up"
        ),
    ] = None
    restart_window: Annotated[
        int | None,
        flag("--restart-window", metavar="duration", parse=duration, help="Window used to evaluate the restart policy"),
    ] = None
    update_parallelism: Annotated[
        int | None,
        flag(
            "--update-parallelism",
            metavar="uint",
            parse=natural,
            help="Maximum number of tasks updated simultaneously (0 to update all at once) (default 1)",
        ),
    ] = None
    update_delay: Annotated[
        int | None,
        flag("--update-delay", metavar="duration", parse=duration, help="Delay between updates (default 0s)"),
    ] = None
    update_order: Annotated[
        int | None,
        flag(
            "--update-order",
            parse=_one_of(_ORDERS),
            late=True,
            help='Update order ("start-first", "stop-first") (default "stop-first")',
        ),
    ] = None
    endpoint_mode: Annotated[
        int | None,
        flag(
            "--endpoint-mode", parse=_one_of(_ENDPOINTS), late=True, help='Endpoint mode (vip or dnsrr) (default "vip")'
        ),
    ] = None
    cap_add: Annotated[list[str], flag("--cap-add", metavar="list", help="Add Linux capabilities")] = []
    cap_drop: Annotated[list[str], flag("--cap-drop", metavar="list", help="Drop Linux capabilities")] = []


def _ports(text: str) -> Ports:
    return Ports(service_ports(text))


class CreateFlags(OneFlags, CreateIsolationFlags):
    """What is a list, whole."""

    name: Annotated[str, flag("--name", help="Service name")] = ""
    mode: Annotated[str, flag("--mode", help='Service mode ("replicated", "global") (default "replicated")')] = (
        "replicated"
    )
    env: Annotated[
        list[str], flag("-e", "--env", metavar="list", parse=pair.variable, help="Set environment variables")
    ] = []
    env_file: Annotated[
        list[str], flag("--env-file", metavar="list", help="Read in a file of environment variables")
    ] = []
    label: Annotated[list[str], flag("-l", "--label", metavar="list", parse=pair.label, help="Service labels")] = []
    container_label: Annotated[
        list[str], flag("--container-label", metavar="list", parse=pair.label, help="Container labels")
    ] = []
    publish: Annotated[
        list[Ports],
        flag("-p", "--publish", metavar="port", parse=_ports, help="Publish a port on every node, or with mode=host"),
    ] = []
    mount: Annotated[
        list[Mount],
        flag("--mount", metavar="mount", parse=mounting.mount, help="Attach a filesystem mount to the service"),
    ] = []
    network: Annotated[
        list[NetworkAttachment], flag("--network", metavar="network", parse=process.network, help="Network attachments")
    ] = []
    constraint: Annotated[list[str], flag("--constraint", metavar="list", help="Placement constraints")] = []
    placement_pref: Annotated[
        list[str], flag("--placement-pref", metavar="pref", help="Add a placement preference")
    ] = []
    group: Annotated[
        list[str], flag("--group", metavar="list", help="Set one or more supplementary user groups for the container")
    ] = []
    host: Annotated[
        list[str],
        flag(
            "--host",
            metavar="list",
            parse=process.extra_host,
            help="Set one or more custom host-to-IP mappings (host:ip)",
        ),
    ] = []
    dns: Annotated[
        list[str], flag("--dns", metavar="list", parse=process.ip_address, help="Set custom DNS servers")
    ] = []
    sysctl: Annotated[list[str], flag("--sysctl", metavar="list", help="Sysctl options")] = []
    ulimit: Annotated[
        list[Ulimit], flag("--ulimit", metavar="ulimit", parse=process.ulimit, help="Ulimit options")
    ] = []


def _port_place(text: str) -> str:
    number, protocol = port_and_protocol(text)
    return f"{number}/{PROTOCOLS[protocol]}"


class UpdateFlags(OneFlags, UpdateIsolationFlags):
    """What is added to a list, and what is taken from it."""

    image: Annotated[str | None, flag("--image", help="Service image tag")] = None
    args: Annotated[Words | None, flag("--args", metavar="command", parse=_words, help="Service command args")] = None
    force: Annotated[bool, switch("--force", help="Force update even if no changes require it")] = False
    rollback: Annotated[bool, switch("--rollback", help="Rollback to previous specification")] = False
    env_add: Annotated[
        list[str], flag("--env-add", metavar="list", parse=pair.variable, help="Add or update an environment variable")
    ] = []
    env_rm: Annotated[list[str], flag("--env-rm", metavar="list", help="Remove an environment variable")] = []
    label_add: Annotated[
        list[str], flag("--label-add", metavar="list", parse=pair.label, help="Add or update a service label")
    ] = []
    label_rm: Annotated[list[str], flag("--label-rm", metavar="list", help="Remove a label by its key")] = []
    container_label_add: Annotated[
        list[str],
        flag("--container-label-add", metavar="list", parse=pair.label, help="Add or update a container label"),
    ] = []
    container_label_rm: Annotated[
        list[str], flag("--container-label-rm", metavar="list", help="Remove a container label by its key")
    ] = []
    publish_add: Annotated[
        list[Ports], flag("--publish-add", metavar="port", parse=_ports, help="Add or update a published port")
    ] = []
    publish_rm: Annotated[
        list[str],
        flag("--publish-rm", metavar="port", parse=_port_place, help="Remove a published port by its target port"),
    ] = []
    mount_add: Annotated[
        list[Mount],
        flag("--mount-add", metavar="mount", parse=mounting.mount, help="Add or update a mount on a service"),
    ] = []
    mount_rm: Annotated[list[str], flag("--mount-rm", metavar="list", help="Remove a mount by its target path")] = []
    network_add: Annotated[
        list[NetworkAttachment], flag("--network-add", metavar="network", parse=process.network, help="Add a network")
    ] = []
    network_rm: Annotated[list[str], flag("--network-rm", metavar="list", help="Remove a network")] = []
    constraint_add: Annotated[
        list[str], flag("--constraint-add", metavar="list", help="Add or update a placement constraint")
    ] = []
    constraint_rm: Annotated[list[str], flag("--constraint-rm", metavar="list", help="Remove a constraint")] = []
    placement_pref_add: Annotated[
        list[str], flag("--placement-pref-add", metavar="pref", help="Add a placement preference")
    ] = []
    placement_pref_rm: Annotated[
        list[str], flag("--placement-pref-rm", metavar="pref", help="Remove a placement preference")
    ] = []
    group_add: Annotated[
        list[str], flag("--group-add", metavar="list", help="Add an additional supplementary user group")
    ] = []
    group_rm: Annotated[
        list[str], flag("--group-rm", metavar="list", help="Remove a previously added supplementary user group")
    ] = []
    host_add: Annotated[
        list[str], flag("--host-add", metavar="list", parse=process.extra_host, help="Add a custom host-to-IP mapping")
    ] = []
    host_rm: Annotated[
        list[str],
        flag("--host-rm", metavar="list", parse=process.extra_host, help="Remove a custom host-to-IP mapping"),
    ] = []
    dns_add: Annotated[
        list[str], flag("--dns-add", metavar="list", parse=process.ip_address, help="Add or update a custom DNS server")
    ] = []
    dns_rm: Annotated[list[str], flag("--dns-rm", metavar="list", help="Remove a custom DNS server")] = []
    sysctl_add: Annotated[list[str], flag("--sysctl-add", metavar="list", help="Add or update a Sysctl option")] = []
    sysctl_rm: Annotated[list[str], flag("--sysctl-rm", metavar="list", help="Remove a Sysctl option")] = []
    ulimit_add: Annotated[
        list[Ulimit], flag("--ulimit-add", metavar="ulimit", parse=process.ulimit, help="Add or update a ulimit option")
    ] = []
    ulimit_rm: Annotated[list[str], flag("--ulimit-rm", metavar="list", help="Remove a ulimit option")] = []


class RegistryFlags(Flags):
    """What the image's registry is asked, and who hears of the credentials for it."""

    with_registry_auth: Annotated[
        bool, switch("--with-registry-auth", help="Send registry authentication details to swarm agents")
    ] = False
    no_resolve_image: Annotated[
        bool,
        switch("--no-resolve-image", help="Do not query the registry to resolve image digest and supported platforms"),
    ] = False


class WaitFlags(Flags):
    """Whether the command stays until the service is as it should be."""

    detach: Annotated[
        bool, switch("-d", "--detach", help="Exit immediately instead of waiting for the service to converge")
    ] = False
    quiet: Annotated[bool, switch("-q", "--quiet", help="Suppress progress output")] = False
