"""Parts that several documents share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cli.output.unsaid import Texts
from cli.output.words import rfc3339
from cli.parse.port import port_and_protocol
from shoal.v1.engine_pb2 import Folders
from shoal.v1.types_pb2 import (
    CONTAINER_STATE_PAUSED,
    CONTAINER_STATE_RUNNING,
    MOUNT_TYPE_BIND,
    MOUNT_TYPE_TMPFS,
    PORT_PROTOCOL_UDP,
    PUBLISH_MODE_HOST,
    Container,
    ContainerSpec,
    DeviceMapping,
    HealthCheck,
    Meta,
    Mount,
    Port,
    Resources,
)


def record(meta: Meta) -> dict[str, Any]:
    """What every record of the cluster begins with."""
    return {
        "ID": meta.id,
        "Version": {"Index": meta.version},
        "CreatedAt": rfc3339(meta.created_at_ns),
        "UpdatedAt": rfc3339(meta.updated_at_ns),
    }


def enum_word(name: str, prefix: str) -> str:
    """ "RESTART_CONDITION_ON_FAILURE" without its prefix, as docker writes it: "on-failure"."""
    return name.removeprefix(prefix).lower().replace("_", "-")


def protocol(port: Port) -> str:
    return "udp" if port.protocol == PORT_PROTOCOL_UDP else "tcp"


def service_port(port: Port) -> dict[str, Any]:
    return {
        "Protocol": protocol(port),
        "TargetPort": port.target,
        "PublishedPort": port.published,
        "PublishMode": "host" if port.mode == PUBLISH_MODE_HOST else "ingress",
    }


def amount(resources: Resources, *, pids: bool = False) -> dict[str, Any]:
    out = {"NanoCPUs": resources.nano_cpus, "MemoryBytes": resources.memory_bytes}
    return {**out, "Pids": resources.pids} if pids else out


def mount_type(mount: Mount) -> str:
    return {MOUNT_TYPE_BIND: "bind", MOUNT_TYPE_TMPFS: "tmpfs"}.get(mount.type, "volume")


def devices(mappings: Iterable[DeviceMapping]) -> list[dict[str, Any]]:
    return [
        {
            "PathOnHost": each.source,
            "PathInContainer": each.target or each.source,
            "CgroupPermissions": each.permissions or "rwm",
        }
        for each in mappings
    ]


def security_options(spec: ContainerSpec) -> list[str]:
    """As `--security-opt` takes them."""
    return [
        *(["no-new-privileges"] if spec.no_new_privileges else []),
        *([f"seccomp={spec.seccomp}"] if spec.seccomp else []),
        *(["systempaths=unconfined"] if spec.unmasked else []),
    ]


def health_check(check: HealthCheck) -> dict[str, Any]:
    """As `Healthcheck` of a configuration; empty where there is none."""
    if not check.test:
        return {}
    return {
        "Healthcheck": {
            "Test": list(check.test),
            "Interval": check.interval_ns,
            "Timeout": check.timeout_ns,
            "StartPeriod": check.start_period_ns,
            "StartInterval": check.start_interval_ns,
            "Retries": check.retries,
        }
    }


def by_key(values: Mapping[str, str]) -> dict[str, str]:
    """A map as docker shows it: in the order of its keys."""
    return Texts({key: values[key] for key in sorted(values)})


def graph_driver(folders: Folders) -> dict[str, Any]:
    """What a root is made of. An image's layers are never mounted by themselves: it has no folders of overlayfs'."""
    lower, upper = list(folders.layers), folders.upper
    if not upper and lower:
        upper = lower.pop(0)
    places = {
        **({"LowerDir": ":".join(lower)} if lower else {}),
        "MergedDir": folders.merged,
        "UpperDir": upper,
        "WorkDir": folders.work,
    }
    return {"Name": "overlay", "Data": places}


def ports_of(container: Container) -> list[Port]:
    """What it publishes and, while it runs, what it only exposes."""
    published = list(container.status.ports)
    if container.status.state not in (CONTAINER_STATE_RUNNING, CONTAINER_STATE_PAUSED):
        return published
    have = {(each.target, each.protocol) for each in published}
    exposed = (port_and_protocol(each) for each in container.spec.exposed_ports)
    return published + [Port(target=number, protocol=kind) for number, kind in exposed if (number, kind) not in have]


def targets(ports: Iterable[Port]) -> Iterator[str]:
    """ "80/tcp" """
    return (f"{each.target}/{protocol(each)}" for each in ports)


def bindings(ports: Iterable[Port]) -> dict[str, Any]:
    """ "80/tcp" → where it is on the host; None for what is only exposed."""
    out: dict[str, Any] = {}
    for port in ports:
        [key] = targets((port,))
        if not port.published:
            out.setdefault(key, None)
            continue
        place = {"HostIp": port.host_address or "0.0.0.0", "HostPort": str(port.published)}
        out[key] = [*(out.get(key) or []), place]
    return out
