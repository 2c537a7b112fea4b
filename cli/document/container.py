"""A container as `docker inspect` shows it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cli.document.common import by_key, health_check, mount_type, ports_of, protocol
from cli.output.words import rfc3339
from shoal.v1 import types_pb2
from shoal.v1.engine_pb2 import ContainerSize
from shoal.v1.types_pb2 import Address, Container, ContainerSpec, Health, Mount, Port

_POLICIES = {
    types_pb2.RESTART_CONDITION_ON_FAILURE: "on-failure",
    types_pb2.RESTART_CONDITION_ANY: "always",
    types_pb2.RESTART_CONDITION_UNLESS_STOPPED: "unless-stopped",
}
_HEALTH = {
    types_pb2.HEALTH_STATE_STARTING: "starting",
    types_pb2.HEALTH_STATE_HEALTHY: "healthy",
    types_pb2.HEALTH_STATE_UNHEALTHY: "unhealthy",
}
_ANONYMOUS = re.compile("[0-9a-f]{64}")
_DEFAULT_SHM_BYTES = 64 << 20


def document(
    container: Container, size: ContainerSize | None = None, places: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """`size` where it was asked for; `places`: where its volumes are on the host, by name."""
    return {
        "Id": container.meta.id,
        "Created": rfc3339(container.meta.created_at_ns),
        "Path": container.argv[0] if container.argv else "",
        "Args": list(container.argv[1:]),
        "State": _state(container),
        "Image": container.image_id,
        "LogPath": container.log_path,
        "Name": f"/{container.name}",
        "RestartCount": container.status.restart_count,
        "Driver": "overlay",
        "Platform": "linux",
        **({"SizeRw": size.own_bytes, "SizeRootFs": size.whole_bytes} if size is not None else {}),
        "HostConfig": _host_config(container),
        "Mounts": [_mount(each, places or {}) for each in container.mounts],
        "Config": _config(container),
        "NetworkSettings": _network_settings(container),
    }


def _state(container: Container) -> dict[str, Any]:
    now = container.status
    word = types_pb2.ContainerState.Name(now.state).removeprefix("CONTAINER_STATE_").lower()
    return {
        "Status": word,
        "Running": word in ("running", "paused", "restarting"),
        "Paused": word == "paused",
        "Restarting": word == "restarting",
        "OOMKilled": now.oom_killed,
        "Dead": word == "dead",
        "Pid": now.pid,
        "ExitCode": now.exit_code,
        "Error": now.error,
        "StartedAt": rfc3339(now.started_at_ns),
        "FinishedAt": rfc3339(now.finished_at_ns),
        **_health(now.health),
    }


def _health(health: Health) -> dict[str, Any]:
    if health.state not in _HEALTH:
        return {}
    return {
        "Health": {
            "Status": _HEALTH[health.state],
            "FailingStreak": health.failing_streak,
            "Log": [
                {
                    "Start": rfc3339(each.started_at_ns),
                    "End": rfc3339(each.ended_at_ns),
                    "ExitCode": each.exit_code,
                    "Output": each.output,
                }
                for each in health.results
            ],
        }
    }


def _host_config(container: Container) -> dict[str, Any]:
    spec, limits = container.spec, container.limits
    return {
        "Binds": [_bind(each) for each in spec.mounts if each.type != types_pb2.MOUNT_TYPE_TMPFS],
        "Tmpfs": {each.target: _tmpfs(each) for each in spec.mounts if each.type == types_pb2.MOUNT_TYPE_TMPFS},
        "NetworkMode": container.networks[0].network if container.networks else "default",
        "PortBindings": _bindings(container.ports),
        "RestartPolicy": {
            "Name": _POLICIES.get(container.restart.condition, "no"),
            "MaximumRetryCount": container.restart.max_attempts,
        },
        "AutoRemove": container.auto_remove,
        "CapAdd": list(spec.cap_add),
        "CapDrop": list(spec.cap_drop),
        "Dns": list(spec.dns),
        "ExtraHosts": list(spec.hosts),
        "GroupAdd": list(spec.groups),
        "Privileged": spec.privileged,
        "Annotations": by_key(spec.annotations),
        "CgroupParent": spec.cgroup_parent,
        "UsernsMode": spec.userns_mode,
        "Runtime": spec.runtime,
        "CgroupnsMode": spec.cgroupns_mode or "private",
        "DeviceCgroupRules": list(spec.device_rules) or None,
        "Devices": [
            {
                "PathOnHost": each.source,
                "PathInContainer": each.target or each.source,
                "CgroupPermissions": each.permissions or "rwm",
            }
            for each in spec.devices
        ],
        "DnsOptions": list(spec.dns_options),
        "DnsSearch": list(spec.dns_search),
        "Links": [f"/{each.replace(':', f':/{container.name}/')}" for each in map(_with_alias, spec.links)] or None,
        "IpcMode": spec.ipc_mode or "private",
        "LogConfig": {"Type": spec.log.driver or "json-file", "Config": by_key(spec.log.options)},
        "OomScoreAdj": spec.oom_score_adj,
        "PidMode": spec.pid_mode,
        "SecurityOpt": _security(spec) or None,
        "UTSMode": spec.uts_mode,
        "VolumesFrom": list(spec.volumes_from) or None,
        **_tuning(container),
        "ReadonlyRootfs": spec.read_only,
        "Init": spec.init,
        "ShmSize": spec.shm_size_bytes or _DEFAULT_SHM_BYTES,
        "Sysctls": by_key(spec.sysctls),
        "Memory": limits.memory_bytes,
        "NanoCpus": limits.nano_cpus,
        "PidsLimit": limits.pids or None,
        "Ulimits": [{"Name": each.name, "Hard": each.hard, "Soft": each.soft} for each in spec.ulimits],
    }


def _with_alias(link: str) -> str:
    return link if ":" in link else f"{link}:{link}"


def _security(spec: ContainerSpec) -> list[str]:
    return [
        *(["no-new-privileges"] if spec.no_new_privileges else []),
        *([f"seccomp={spec.seccomp}"] if spec.seccomp else []),
        *(["systempaths=unconfined"] if spec.unmasked else []),
    ]


def _tuning(container: Container) -> dict[str, Any]:
    tuning, limits = container.tuning, container.limits
    return {
        "CpuShares": tuning.cpu_shares,
        "CpuPeriod": tuning.cpu_period_us,
        "CpuQuota": tuning.cpu_quota_us,
        "CpusetCpus": tuning.cpuset_cpus,
        "CpusetMems": tuning.cpuset_mems,
        "MemoryReservation": tuning.memory_reservation_bytes,
        "MemorySwap": tuning.memory_swap_bytes or limits.memory_bytes * 2,
        "BlkioWeight": tuning.io_weight,
        "MemorySwappiness": tuning.memory_swappiness if tuning.HasField("memory_swappiness") else None,
        "OomKillDisable": tuning.oom_kill_disable,
    }


def _bind(mount: Mount) -> str:
    return f"{mount.source}:{mount.target}{':ro' if mount.read_only else ''}"


def _tmpfs(mount: Mount) -> str:
    size = [f"size={mount.tmpfs_size_bytes}"] if mount.tmpfs_size_bytes else []
    mode = [f"mode={mount.tmpfs_mode:o}"] if mount.tmpfs_mode else []
    return ",".join([*(["ro"] if mount.read_only else []), *size, *mode, *mount.tmpfs_options])


def _mount(mount: Mount, places: Mapping[str, str]) -> dict[str, Any]:
    kind = mount_type(mount)
    return {
        "Type": kind,
        # docker leaves both out of a bind's JSON, and yet lets a template ask for them
        "Name": mount.source if kind == "volume" else "",
        "Driver": "local" if kind == "volume" else "",
        "Source": places.get(mount.source, mount.source),
        "Destination": mount.target,
        "Mode": ",".join(filter(None, ("ro" if mount.read_only else "", mount.relabel))),
        "RW": not mount.read_only,
        "Propagation": mount.propagation or ("rprivate" if kind == "bind" else ""),
    }


def _config(container: Container) -> dict[str, Any]:
    spec = container.spec
    return {
        "Hostname": spec.hostname or container.meta.id[:12],
        "Domainname": spec.domainname,
        "ExposedPorts": {each: {} for each in sorted({*spec.exposed_ports, *_targets(container.ports)})},
        "User": container.user,
        "Tty": spec.tty,
        "OpenStdin": spec.open_stdin,
        "Env": list(container.env),
        "Cmd": list(spec.args),
        "Image": spec.image,
        "Volumes": {each.target: {} for each in container.mounts if _ANONYMOUS.fullmatch(each.source)} or None,
        "WorkingDir": container.workdir,
        "Entrypoint": list(spec.entrypoint) or None,
        "Labels": by_key(spec.labels),
        "StopSignal": spec.stop_signal or "SIGTERM",
        **health_check(container.health),
    }


def _targets(ports: Iterable[Port]) -> Iterator[str]:
    return (f"{each.target}/{protocol(each)}" for each in ports)


def _network_settings(container: Container) -> dict[str, Any]:
    addresses = container.status.addresses
    first = addresses[0] if addresses else Address()
    return {
        # as long as it runs, where its network can be entered (nsenter --net=)
        "SandboxKey": f"/proc/{container.status.pid}/ns/net" if container.status.pid else "",
        "Ports": _bindings(ports_of(container)),
        "Gateway": first.gateway,
        "IPAddress": first.address,
        "IPPrefixLen": first.prefix,
        "MacAddress": first.mac,
        "Networks": {
            each.network_name: {
                "Aliases": _aliases(container, each.network_name),
                "NetworkID": each.network_id,
                "Gateway": each.gateway,
                "IPAddress": each.address,
                "IPPrefixLen": each.prefix,
                "MacAddress": each.mac,
            }
            for each in addresses
        },
    }


def _aliases(container: Container, network: str) -> list[str] | None:
    given = [alias for each in container.networks if each.network == network for alias in each.aliases]
    return given or None


def _bindings(ports: Iterable[Port]) -> dict[str, Any]:
    """ "80/tcp" → where it is on the host; None for what is only exposed."""
    out: dict[str, Any] = {}
    for port in ports:
        [key] = _targets((port,))
        if not port.published:
            out.setdefault(key, None)
            continue
        place = {"HostIp": port.host_address or "0.0.0.0", "HostPort": str(port.published)}
        out[key] = [*(out.get(key) or []), place]
    return out
