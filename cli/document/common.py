"""Parts that several documents share."""

from __future__ import annotations

from typing import Any

from cli.output.words import rfc3339
from shoal.v1.types_pb2 import (
    MOUNT_TYPE_BIND,
    MOUNT_TYPE_TMPFS,
    PORT_PROTOCOL_UDP,
    PUBLISH_MODE_HOST,
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
