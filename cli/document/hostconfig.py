"""`HostConfig` of a container: what was asked of its host, with docker's defaults for what was not. What only other
systems have is as Docker shows it where that is so, too: 0, empty or null."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cli.document.common import bindings, by_key, devices, mount_type, security_options
from cli.output.unsaid import Unsaid, listed, mapped, said
from shoal.names import is_device_name
from shoal.v1 import types_pb2
from shoal.v1.engine_pb2 import ContainerLayout
from shoal.v1.types_pb2 import Container, ContainerSpec, Mount

_POLICIES = {
    types_pb2.RESTART_CONDITION_ON_FAILURE: "on-failure",
    types_pb2.RESTART_CONDITION_ANY: "always",
    types_pb2.RESTART_CONDITION_UNLESS_STOPPED: "unless-stopped",
}
_THROTTLES = {
    "BlkioDeviceReadBps": "read_bps",
    "BlkioDeviceWriteBps": "write_bps",
    "BlkioDeviceReadIOps": "read_iops",
    "BlkioDeviceWriteIOps": "write_iops",
}
_DEFAULT_SHM_BYTES = 64 << 20


def host_config(container: Container, layout: ContainerLayout) -> dict[str, Any]:
    spec = container.spec
    short = [each for each in spec.mounts if not each.spelled_out]
    return {
        "Binds": listed(_bind(each) for each in short if each.type != types_pb2.MOUNT_TYPE_TMPFS and each.source),
        "ContainerIDFile": container.origin.id_file,
        "LogConfig": {"Type": spec.log.driver or "json-file", "Config": by_key(spec.log.options)},
        "NetworkMode": container.networks[0].network if container.networks else "default",
        "PortBindings": bindings(container.ports),
        "RestartPolicy": {
            "Name": _POLICIES.get(container.restart.condition, "no"),
            "MaximumRetryCount": container.restart.max_attempts,
        },
        "AutoRemove": container.auto_remove,
        "VolumeDriver": "",
        "VolumesFrom": listed(spec.volumes_from),
        "CapAdd": listed(sorted(map(_capability, spec.cap_add))),
        "CapDrop": listed(sorted(map(_capability, spec.cap_drop))),
        "CgroupnsMode": spec.cgroupns_mode or "private",
        "Dns": list(spec.dns),
        "DnsOptions": list(spec.dns_options),
        "DnsSearch": list(spec.dns_search),
        "ExtraHosts": listed(spec.hosts),
        "GroupAdd": listed(spec.groups),
        "IpcMode": spec.ipc_mode or "private",
        "Cgroup": "",
        "Links": listed(f"/{each.replace(':', f':/{container.name}/')}" for each in map(_with_alias, spec.links)),
        "OomScoreAdj": spec.oom_score_adj,
        "PidMode": spec.pid_mode,
        "Privileged": spec.privileged,
        "PublishAllPorts": container.origin.publish_all,
        "ReadonlyRootfs": spec.read_only,
        "SecurityOpt": listed(security_options(spec)),
        "UTSMode": spec.uts_mode,
        "UsernsMode": spec.userns_mode,
        "ShmSize": spec.shm_size_bytes or _DEFAULT_SHM_BYTES,
        "Runtime": spec.runtime,
        "ConsoleSize": [0, 0],
        "Isolation": "",
        **_resources(container),
        "MaskedPaths": listed(layout.masked_paths),
        "ReadonlyPaths": listed(layout.read_only_paths),
        **_if_asked(spec, short),
    }


def _if_asked(spec: ContainerSpec, short: Sequence[Mount]) -> dict[str, Any]:
    """What is left out where nobody asked for it."""
    return {
        "Annotations": said(by_key(spec.annotations)),
        "Init": True if spec.init else Unsaid(None),
        "Mounts": said(listed(_mount(each) for each in spec.mounts if each.spelled_out)),
        "Sysctls": said(by_key(spec.sysctls)),
        "Tmpfs": said(mapped({each.target: _tmpfs(each) for each in short if each.type == types_pb2.MOUNT_TYPE_TMPFS})),
    }


def _with_alias(link: str) -> str:
    return link if ":" in link else f"{link}:{link}"


def _resources(container: Container) -> dict[str, Any]:
    tuning, limits, spec = container.tuning, container.limits, container.spec
    return {
        "CpuShares": tuning.cpu_shares,
        "Memory": limits.memory_bytes,
        "NanoCpus": limits.nano_cpus,
        "CgroupParent": spec.cgroup_parent,
        "BlkioWeight": tuning.io_weight,
        "BlkioWeightDevice": [{"Path": each.path, "Weight": each.weight} for each in tuning.device_weights],
        **{
            field: listed({"Path": each.path, "Rate": each.rate} for each in tuning.throttles if each.kind == kind)
            for field, kind in _THROTTLES.items()
        },
        "CpuPeriod": tuning.cpu_period_us,
        "CpuQuota": tuning.cpu_quota_us,
        "CpuRealtimePeriod": tuning.cpu_realtime_period_us,
        "CpuRealtimeRuntime": tuning.cpu_realtime_runtime_us,
        "CpusetCpus": tuning.cpuset_cpus,
        "CpusetMems": tuning.cpuset_mems,
        "Devices": devices(each for each in spec.devices if not is_device_name(each.source)),
        "DeviceCgroupRules": listed(spec.device_rules),
        "DeviceRequests": listed(_requests([each.source for each in spec.devices if is_device_name(each.source)])),
        "MemoryReservation": tuning.memory_reservation_bytes,
        "MemorySwap": tuning.memory_swap_bytes or limits.memory_bytes * 2,
        "MemorySwappiness": tuning.memory_swappiness if tuning.HasField("memory_swappiness") else None,
        "OomKillDisable": tuning.oom_kill_disable,
        "PidsLimit": limits.pids or None,
        "Ulimits": listed({"Name": each.name, "Hard": each.hard, "Soft": each.soft} for each in spec.ulimits),
        "CpuCount": 0,
        "CpuPercent": 0,
        "IOMaximumIOps": 0,
        "IOMaximumBandwidth": 0,
    }


def _requests(names: list[str]) -> list[dict[str, Any]]:
    """Devices by name."""
    return [{"Driver": "cdi", "Count": 0, "DeviceIDs": names, "Capabilities": None, "Options": None}] if names else []


def _bind(mount: Mount) -> str:
    words = ["ro" if mount.read_only else "", mount.relabel, mount.propagation, "nocopy" if mount.no_copy else ""]
    options = ",".join(filter(None, words))
    return ":".join(filter(None, (mount.source, mount.target, options)))


def _mount(mount: Mount) -> dict[str, Any]:
    """As `--mount` says it; what it does not say is left out."""
    bind = {
        "Propagation": mount.propagation,
        "NonRecursive": mount.recursion == "disabled",
        "ReadOnlyNonRecursive": mount.recursion == "writable",
        "ReadOnlyForceRecursive": mount.recursion == "readonly",
    }
    driver = {"Options": by_key(mount.volume_options)}
    volume = {"NoCopy": mount.no_copy, "Labels": by_key(mount.volume_labels), "Subpath": mount.subpath}
    has_volume = any((*volume.values(), *driver.values()))
    return {
        "Type": mount_type(mount),
        "Source": said(mount.source),
        "Target": mount.target,
        "ReadOnly": said(mount.read_only),
        "BindOptions": said(_told(bind)),
        "VolumeOptions": said({**_told(volume), "DriverConfig": _told(driver)} if has_volume else {}),
        "TmpfsOptions": said(_told({"SizeBytes": mount.tmpfs_size_bytes, "Mode": mount.tmpfs_mode})),
    }


def _capability(name: str) -> str:
    """However it was written: CAP_NET_ADMIN; but ALL."""
    plain = name.upper().removeprefix("CAP_")
    return plain if plain == "ALL" else f"CAP_{plain}"


def _told(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `values` that say something; none where all are empty."""
    return {name: said(value) for name, value in values.items()} if any(values.values()) else {}


def _tmpfs(mount: Mount) -> str:
    size = [f"size={mount.tmpfs_size_bytes}"] if mount.tmpfs_size_bytes else []
    mode = [f"mode={mount.tmpfs_mode:o}"] if mount.tmpfs_mode else []
    return ",".join([*(["ro"] if mount.read_only else []), *size, *mode, *mount.tmpfs_options])
