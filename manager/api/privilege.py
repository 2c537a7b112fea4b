"""Which tasks get more of their host than a container of its own: what only operators may ask for. Pure."""

from __future__ import annotations

from shoal.model.container import ContainerSpec, MountType
from shoal.model.service import TaskSpec

_HOST = "host"


def reaches_the_host(task: TaskSpec) -> bool:
    """Whether it asks for the host's files, devices, namespaces or cgroups, for more rights than docker's default, or
    for less of what keeps it in."""
    spec = task.container
    return any(
        (
            any(each.type is MountType.BIND for each in spec.mounts),
            any(each.network == _HOST for each in task.networks),
            _HOST in (spec.pid_mode, spec.ipc_mode, spec.uts_mode, spec.cgroupns_mode),
            spec.privileged,
            spec.cap_add,
            spec.devices,
            spec.device_rules,
            spec.seccomp,
            spec.unmasked,
            spec.cgroup_parent,
            spec.runtime,
            spec.oom_score_adj < 0,
            _of_other_containers(spec),
        )
    )


def _of_other_containers(spec: ContainerSpec) -> bool:
    """Of a host, whoever they belong to."""
    joined = (spec.pid_mode, spec.ipc_mode, spec.uts_mode)
    return bool(spec.volumes_from or spec.links) or any(each.startswith("container:") for each in joined)
