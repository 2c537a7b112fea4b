"""Check: what a service may be. Each refusal says which value, and what would do."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterable

from manager.allocator import port as ports
from manager.control import constraint
from manager.scheduler.rank import spread_key
from manager.store.view import View
from shoal import placeholder, reference
from shoal.errors import Conflict, InvalidArgument, NotFound
from shoal.model.base import Resources
from shoal.model.container import Mount, MountType
from shoal.model.network import NetworkScope, Port, PublishMode
from shoal.model.service import EndpointMode, ServiceSpec, TaskSpec
from shoal.names import check_name, check_service_name, printable

MAX_REPLICAS = 100_000
_MIN_NANO_CPUS = 1_000_000
_MIN_MEMORY_BYTES = 4 << 20
_LOCAL_NETWORKS = frozenset({"bridge", "host", "none"})


def check(view: View, spec: ServiceSpec) -> None:
    """Raises InvalidArgument, NotFound for a network, or Conflict for a port that another service has."""
    check_service_name(spec.name)
    if spec.replicas > MAX_REPLICAS:
        raise InvalidArgument(f"{spec.replicas} replicas are above {MAX_REPLICAS}")
    _check_task(spec.task)
    _check_networks(view, spec)
    _check_ports(view, spec)


def _check_task(task: TaskSpec) -> None:
    if not task.container.image:
        raise InvalidArgument("image reference must be provided")
    reference.parse(task.container.image)
    for text in task.placement.constraints:
        constraint.parse(text)
    for text in task.placement.preferences:
        spread_key(text)
    _check_amount(task.limits, "limit")
    _check_amount(task.reservations, "reservation")
    for field in ("nano_cpus", "memory_bytes"):
        limit, reserved = getattr(task.limits, field), getattr(task.reservations, field)
        if limit and reserved > limit:
            raise InvalidArgument(f"the {field.partition('_')[0]} reservation must not be above the limit")
    if min(task.restart.delay_ns, task.restart.window_ns, task.container.stop_grace_ns) < 0:
        raise InvalidArgument("a time must not be negative")
    for variable in task.container.env:
        if not variable.partition("=")[0]:
            raise InvalidArgument(f"invalid environment variable: {printable(variable)!r}", hint="write KEY=VALUE")
    _check_mounts(task.container.mounts)
    placeholder.check(task.container)


def _check_amount(amount: Resources, what: str) -> None:
    if min(amount.nano_cpus, amount.memory_bytes, amount.pids) < 0:
        raise InvalidArgument(f"a {what} must not be negative")
    if 0 < amount.nano_cpus < _MIN_NANO_CPUS:
        raise InvalidArgument(f"invalid cpu {what} {amount.nano_cpus / 1e9:g}: must be at least 0.001")
    if 0 < amount.memory_bytes < _MIN_MEMORY_BYTES:
        raise InvalidArgument(f"invalid memory {what} {amount.memory_bytes}: must be at least 4MiB")


def _check_mounts(mounts: Iterable[Mount]) -> None:
    targets = set()
    for mount in mounts:
        target = posixpath.normpath(mount.target)
        if not mount.target.startswith("/") or target == "/":
            raise InvalidArgument(
                f"invalid mount target {printable(mount.target)!r}", hint="give an absolute path that is not /"
            )
        if target in targets:
            raise InvalidArgument(f"Duplicate mount point: {printable(mount.target)}")
        targets.add(target)
        if mount.type is MountType.BIND and not mount.source.startswith("/"):
            raise InvalidArgument(f"invalid mount source {printable(mount.source)!r}", hint="give an absolute path")
        if mount.type is MountType.VOLUME and mount.source:
            check_name(mount.source, "volume")


def _check_networks(view: View, spec: ServiceSpec) -> None:
    for attachment in spec.task.networks:
        if attachment.network in _LOCAL_NETWORKS:
            continue
        network = view.network(attachment.network)
        if network is None:
            raise NotFound(
                f"network {printable(attachment.network)} not found", hint="make it with 'network create -d overlay'"
            )
        if network.scope is not NetworkScope.SWARM or network.spec.ingress:
            raise InvalidArgument(f"network {network.spec.name} cannot be used with services")


def _check_ports(view: View, spec: ServiceSpec) -> None:
    for port in spec.ports:
        if not 0 < port.target < 65536 or not 0 <= port.published < 65536:
            raise InvalidArgument(f"invalid port {port.published}:{port.target}", hint="ports are 1 to 65535")
        if port.mode is PublishMode.INGRESS and spec.endpoint_mode is EndpointMode.DNSRR:
            raise InvalidArgument(
                "a port published with ingress mode can't be used with dnsrr mode", hint="publish it with mode=host"
            )
    wanted = Counter(_place(port) for port in spec.ports if port.published)
    for (protocol, published, _), count in wanted.items():
        if count > 1:
            raise InvalidArgument(f"duplicate published port {published}/{protocol} of service {spec.name}")
    if other := ports.conflict(view.services.values(), spec):
        theirs = {(port.protocol, port.published) for port in (*other.ports, *other.spec.ports)}
        port = next(port for port in spec.ports if (port.protocol, port.published) in theirs)
        raise Conflict(
            f"port '{port.published}' is already in use by service '{other.spec.name}' ({other.meta.id})",
            hint="publish on another one",
        )


def _place(port: Port) -> tuple[str, int, str]:
    return (port.protocol.name.lower(), port.published, port.host_address)
