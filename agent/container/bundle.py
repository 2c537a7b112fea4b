"""A container as the OCI runtime config that runs it. Pure: `Facts` holds what `launch` found out on this host.

The defaults are docker's: capabilities, masked and read-only paths, mounts, devices, sysctls. The seccomp profile
is not spelled out; the annotation `shoal.seccomp` = "default" asks the runtime for its built-in one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from agent.container.capability import capabilities
from agent.container.idrange import SIZE
from agent.container.isolation import HOST, UNCONFINED, device_rules, seccomp_profile
from agent.container.mounts import INIT_PATH, mounts
from agent.container.user import User
from shoal.defaults import PATH_ENV
from shoal.model.container import Container, ContainerSpec

Config = dict[str, Any]

SECCOMP = "shoal.seccomp"
_CPU_PERIOD_US = 100_000
_MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
# Character devices that every container may use: null zero full random urandom tty console ptmx, and its ptys.
_DEVICE_RULES = (
    (1, 3, "rwm"),
    (1, 5, "rwm"),
    (1, 7, "rwm"),
    (1, 8, "rwm"),
    (1, 9, "rwm"),
    (5, 0, "rwm"),
    (5, 1, "rwm"),
    (5, 2, "rwm"),
    (136, None, "rwm"),
)
_THROTTLES = {
    "read_bps": "throttleReadBpsDevice",
    "write_bps": "throttleWriteBpsDevice",
    "read_iops": "throttleReadIOPSDevice",
    "write_iops": "throttleWriteIOPSDevice",
}
_NET_SYSCTLS = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}


class Device(msgspec.Struct, frozen=True):
    """A device node that a container gets, of the host's `major`:`minor`. `kind` is "c" or "b"; `access` what its
    cgroup lets it do with it, empty where that lets everything."""

    path: str
    kind: str
    major: int
    minor: int
    mode: int
    uid: int = 0
    gid: int = 0
    access: str = ""


class Limit(msgspec.Struct, frozen=True):
    """A `Throttle` of a device by its numbers."""

    kind: str
    major: int
    minor: int
    rate: int


class Share(msgspec.Struct, frozen=True):
    """A `DeviceWeight` of a device by its numbers."""

    major: int
    minor: int
    weight: int


class Facts(msgspec.Struct, frozen=True):
    """`netns_path` is empty for the host's network, `shares_netns` says that another container owns it.
    `sources` are the host paths of the container's mounts, in its order (tmpfs: empty); `files` what lies over
    single paths, target → source; `linked` the variables of its links. `pidns_path` and `ipcns_path` are another
    container's, `shm_path` is a /dev/shm that several share, `init_path` the init program on the host where the
    container has one, `cpu_throttles` its thermal files. `userns_path` is the container's user namespace, empty for
    the host's."""

    cgroup: str
    hostname: str
    user: User
    available: frozenset[str]
    netns_path: str = ""
    shares_netns: bool = False
    sources: tuple[str, ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    devices: tuple[Device, ...] = ()
    init_path: str = ""
    rows: int = 0
    columns: int = 0
    cpu_throttles: tuple[str, ...] = ()
    pidns_path: str = ""
    ipcns_path: str = ""
    shm_path: str = ""
    throttles: tuple[Limit, ...] = ()
    weights: tuple[Share, ...] = ()
    linked: tuple[str, ...] = ()
    userns_path: str = ""


def masked_paths(spec: ContainerSpec, thermal: Sequence[str]) -> list[str]:
    """What nobody in it reads; `thermal` are the host's files of that kind."""
    return [] if spec.privileged or spec.unmasked else [*_MASKED, *thermal]


def read_only_paths(spec: ContainerSpec) -> list[str]:
    return [] if spec.privileged or spec.unmasked else list(_READ_ONLY)


def bundle(container: Container, facts: Facts) -> Config:
    """The config of one start."""
    spec = container.spec
    granted = capabilities(privileged=spec.privileged, add=spec.cap_add, drop=spec.cap_drop, available=facts.available)
    return {
        "ociVersion": "1.2.0",
        "process": {
            **process(
                argv=((INIT_PATH, "--", *container.argv) if facts.init_path else container.argv),
                env=environment(
                    container, hostname=facts.hostname, home=facts.user.home, tty=spec.tty, linked=facts.linked
                ),
                cwd=container.workdir,
                user=facts.user,
                granted=granted,
                tty=spec.tty,
                size=(facts.rows, facts.columns),
                no_new_privileges=spec.no_new_privileges,
            ),
            "oomScoreAdj": spec.oom_score_adj,
            "rlimits": [
                {"type": f"RLIMIT_{each.name.upper()}", "soft": each.soft, "hard": each.hard} for each in spec.ulimits
            ],
        },
        "root": {"path": "rootfs", "readonly": spec.read_only},
        **({} if spec.uts_mode == HOST else {"hostname": facts.hostname, "domainname": spec.domainname}),
        "mounts": mounts(container, facts),
        "linux": {
            "namespaces": _namespaces(spec, facts),
            **_id_mappings(container.first_id),
            "cgroupsPath": facts.cgroup,
            "resources": resources(container, devices=facts.devices, throttles=facts.throttles, weights=facts.weights),
            "devices": _devices(facts.devices),
            "sysctl": _sysctls(container, facts),
            "maskedPaths": masked_paths(spec, facts.cpu_throttles),
            "readonlyPaths": read_only_paths(spec),
            **_seccomp(spec, granted),
            "rootfsPropagation": "rprivate",
        },
        "annotations": {
            **spec.annotations,
            **({SECCOMP: "default"} if not spec.privileged and not spec.seccomp else {}),
        },
    }


def _seccomp(spec: ContainerSpec, granted: Sequence[str]) -> Config:
    """A profile of the user's own; the default one has no need to be spelled out."""
    if spec.seccomp in ("", UNCONFINED):
        return {}
    return {"seccomp": seccomp_profile(spec.seccomp, granted)}


def process(
    *,
    argv: Sequence[str],
    env: Sequence[str],
    cwd: str,
    user: User,
    granted: Sequence[str],
    tty: bool,
    size: tuple[int, int] = (0, 0),
    no_new_privileges: bool = False,
) -> Config:
    """The `process` of a start or an exec. Who is not root has capabilities to win back (set-user-id programs),
    none in hand."""
    in_hand = list(granted) if user.uid == 0 else []
    console = {"consoleSize": {"height": size[0], "width": size[1]}} if tty and all(size) else {}
    return {
        "terminal": tty,
        **console,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.groups)},
        "args": list(argv),
        "env": list(env),
        "cwd": cwd,
        "capabilities": {"bounding": list(granted), "effective": in_hand, "permitted": in_hand},
        "noNewPrivileges": no_new_privileges,
    }


def environment(
    container: Container,
    *,
    hostname: str,
    home: str,
    tty: bool,
    linked: Sequence[str] = (),
    extra: Sequence[str] = (),
) -> list[str]:
    """PATH, HOSTNAME, TERM, HOME, those of its links, then the container's own (the image's, the user's), then `extra`;
    who comes later wins, and a name without "=" takes the variable away."""
    variables: dict[str, str] = {}
    base = [PATH_ENV, f"HOSTNAME={hostname}", *(["TERM=xterm"] if tty else []), f"HOME={home}"]
    for each in (*base, *linked, *container.env, *extra):
        name, equals, value = each.partition("=")
        if equals:
            variables[name] = value
        else:
            variables.pop(name, None)
    return [f"{name}={value}" for name, value in variables.items()]


def resources(
    container: Container,
    *,
    devices: Sequence[Device] = (),
    throttles: Sequence[Limit] = (),
    weights: Sequence[Share] = (),
) -> Config:
    """Docker's rule for swap, unless the user has one: as much again as memory."""
    limits, tuning = container.limits, container.tuning
    found: Config = {"devices": _device_rules(container.spec, devices)}
    cpu = {
        "shares": tuning.cpu_shares,
        "period": _CPU_PERIOD_US if limits.nano_cpus else tuning.cpu_period_us,
        "quota": limits.nano_cpus * _CPU_PERIOD_US // 10**9 if limits.nano_cpus else tuning.cpu_quota_us,
        "realtimePeriod": tuning.cpu_realtime_period_us,
        "realtimeRuntime": tuning.cpu_realtime_runtime_us,
        "cpus": tuning.cpuset_cpus,
        "mems": tuning.cpuset_mems,
    }
    memory = {
        "limit": limits.memory_bytes,
        "swap": tuning.memory_swap_bytes or limits.memory_bytes * 2,
        "reservation": tuning.memory_reservation_bytes,
        "disableOOMKiller": tuning.oom_kill_disable,
    }
    io = {
        "weight": tuning.io_weight,
        "weightDevice": [{"major": each.major, "minor": each.minor, "weight": each.weight} for each in weights],
        **_throttled(throttles),
    }
    for name, values in (("cpu", cpu), ("memory", memory), ("blockIO", io)):
        if given := {key: value for key, value in values.items() if value}:
            found[name] = given
    if tuning.memory_swappiness is not None:
        found["memory"] = {**found.get("memory", {}), "swappiness": tuning.memory_swappiness}
    if limits.pids > 0:
        found["pids"] = {"limit": limits.pids}
    return found


def _throttled(throttles: Sequence[Limit]) -> Config:
    return {
        name: [{"major": each.major, "minor": each.minor, "rate": each.rate} for each in throttles if each.kind == kind]
        for kind, name in _THROTTLES.items()
    }


def _device_rules(spec: ContainerSpec, devices: Sequence[Device]) -> list[Config]:
    if spec.privileged:
        return [{"allow": True, "access": "rwm"}]
    allowed = [
        {"allow": True, "type": "c", "major": major, "access": access} | ({"minor": minor} if minor is not None else {})
        for major, minor, access in _DEVICE_RULES
    ]
    # Making a node is allowed, since tar does it; opening it is not.
    made = [{"allow": True, "type": kind, "access": "m"} for kind in ("c", "b")]
    own = [
        {"allow": True, "type": each.kind, "major": each.major, "minor": each.minor, "access": each.access}
        for each in devices
    ]
    return [{"allow": False, "access": "rwm"}, *made, *allowed, *own, *device_rules(spec)]


def _devices(devices: Sequence[Device]) -> list[Config]:
    return [
        {
            "path": each.path,
            "type": each.kind,
            "major": each.major,
            "minor": each.minor,
            "fileMode": each.mode,
            "uid": each.uid,
            "gid": each.gid,
        }
        for each in devices
    ]


def _namespaces(spec: ContainerSpec, facts: Facts) -> list[Config]:
    shared = {
        "pid": spec.pid_mode == HOST,
        "uts": spec.uts_mode == HOST,
        "ipc": spec.ipc_mode == HOST,
        "cgroup": spec.cgroupns_mode == HOST,
    }
    made: list[Config] = [{"type": "mount"}, *({"type": name} for name, is_shared in shared.items() if not is_shared)]
    joined = {"pid": facts.pidns_path, "ipc": facts.ipcns_path}
    made = [{**each, "path": path} if (path := joined.get(each["type"])) else each for each in made]
    if facts.userns_path:
        made.append({"type": "user", "path": facts.userns_path})
    return [*made, {"type": "network", "path": facts.netns_path}] if facts.netns_path else made


def _id_mappings(first_id: int) -> Config:
    if not first_id:
        return {}
    mapping = [{"containerID": 0, "hostID": first_id, "size": SIZE}]
    return {"uidMappings": mapping, "gidMappings": mapping}


def _sysctls(container: Container, facts: Facts) -> dict[str, str]:
    own = facts.netns_path and not facts.shares_netns
    return {**(_NET_SYSCTLS if own else {}), **container.spec.sysctls}
