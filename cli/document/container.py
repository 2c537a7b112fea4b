"""A container as `docker inspect` shows it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from cli.document.common import by_key, graph_driver, health_check, mount_type, targets
from cli.document.hostconfig import host_config
from cli.document.sandbox import network_settings
from cli.output.unsaid import Unsaid, listed, mapped, said
from cli.output.words import rfc3339
from shoal.v1 import types_pb2
from shoal.v1.engine_pb2 import ContainerLayout, ContainerSize
from shoal.v1.types_pb2 import Container, Health, Mount

_HEALTH = {
    types_pb2.HEALTH_STATE_STARTING: "starting",
    types_pb2.HEALTH_STATE_HEALTHY: "healthy",
    types_pb2.HEALTH_STATE_UNHEALTHY: "unhealthy",
}
NO_LAYOUT = ContainerLayout()
_ANONYMOUS = re.compile("[0-9a-f]{64}")


def document(
    container: Container,
    layout: ContainerLayout = NO_LAYOUT,
    *,
    size: ContainerSize | None = None,
    places: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """`layout` is of its host, where it says so; `size` where it was asked for; `places`: where its volumes are on the
    host, by name."""
    return {
        "Id": container.meta.id,
        "Created": rfc3339(container.meta.created_at_ns),
        "Path": container.argv[0] if container.argv else "",
        "Args": list(container.argv[1:]),
        "State": _state(container),
        "Image": container.image_id,
        "ResolvConfPath": layout.resolv_conf_path,
        "HostnamePath": layout.hostname_path,
        "HostsPath": layout.hosts_path,
        "LogPath": container.log_path,
        "Name": f"/{container.name}",
        "RestartCount": container.status.restart_count,
        "Driver": "overlay",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": listed(layout.exec_ids),
        **({"SizeRw": size.own_bytes, "SizeRootFs": size.whole_bytes} if size is not None else {}),
        "HostConfig": host_config(container, layout),
        "GraphDriver": graph_driver(layout.folders),
        # without those of --tmpfs
        "Mounts": [
            _mount(each, places or {})
            for each in container.mounts
            if each.spelled_out or each.type != types_pb2.MOUNT_TYPE_TMPFS
        ],
        "Config": _config(container),
        "NetworkSettings": network_settings(container, layout),
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
        "Health": _health(now.health),
    }


def _health(health: Health) -> Any:
    if health.state not in _HEALTH:
        return Unsaid(None)
    return {
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


def _mount(mount: Mount, places: Mapping[str, str]) -> dict[str, Any]:
    kind = mount_type(mount)
    return {
        "Type": kind,
        "Name": said(mount.source if kind == "volume" else ""),
        "Driver": said("local" if kind == "volume" else ""),
        "Source": places.get(mount.source, mount.source),
        "Destination": mount.target,
        "Mode": _mode(mount),
        "RW": not mount.read_only,
        "Propagation": mount.propagation or ("rprivate" if kind == "bind" else ""),
    }


def _mode(mount: Mount) -> str:
    """What stood behind a `-v`'s second colon; for a volume with a name where nothing did, docker's "z"."""
    if mount.type == types_pb2.MOUNT_TYPE_TMPFS:
        return ""
    said_mode = "" if mount.spelled_out else ",".join(filter(None, ("ro" if mount.read_only else "", mount.relabel)))
    named = mount.type == types_pb2.MOUNT_TYPE_VOLUME and not _ANONYMOUS.fullmatch(mount.source)
    return said_mode or ("z" if named else "")


def _config(container: Container) -> dict[str, Any]:
    spec, origin = container.spec, container.origin
    return {
        "Hostname": spec.hostname or container.meta.id[:12],
        "Domainname": spec.domainname,
        "User": container.user,
        "AttachStdin": origin.stdin,
        "AttachStdout": origin.stdout,
        "AttachStderr": origin.stderr,
        "ExposedPorts": said({each: {} for each in sorted({*spec.exposed_ports, *targets(container.ports)})}),
        "Tty": spec.tty,
        "OpenStdin": spec.open_stdin,
        "StdinOnce": origin.stdin and not spec.tty,
        "Env": list(container.env),
        "Cmd": list(spec.args),
        "Image": spec.image,
        # without those of another container, which it did not have filled
        "Volumes": mapped(
            {
                each.target: {}
                for each in container.mounts
                if _ANONYMOUS.fullmatch(each.source) and not each.no_copy and not each.spelled_out
            }
        ),
        "WorkingDir": container.workdir,
        "Entrypoint": listed(spec.entrypoint),
        "OnBuild": listed(()),
        "Labels": by_key(spec.labels),
        "StopSignal": spec.stop_signal or "SIGTERM",
        "StopTimeout": spec.stop_grace_ns // 10**9 if spec.stop_grace_ns else Unsaid(None),
        **health_check(container.health),
    }
