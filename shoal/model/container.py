"""Container: one process tree on one host, with its isolation.

`ContainerSpec` is what was asked for and does not depend on a host; a service's tasks and `run` by hand share it.
"""

from __future__ import annotations

import enum

from shoal.model.base import Meta, Resources, Value
from shoal.model.health import Health, HealthCheck
from shoal.model.network import Address, NetworkAttachment, Port


class MountType(enum.IntEnum):
    BIND = 1
    VOLUME = 2
    TMPFS = 3


class Mount(Value, frozen=True):
    """`source` is a host path (bind) or a volume's name (empty: anonymous). `create_source`, `propagation` and
    `recursion` ("", "disabled", "writable", "readonly") are a bind's; `no_copy`, `subpath` and `volume_*` a volume's
    (which they make), `tmpfs_*` a tmpfs's. `relabel` is SELinux's "z" or "Z". `spelled_out`: asked for by `--mount`,
    and shown so."""

    type: MountType = MountType.VOLUME
    source: str = ""
    target: str = ""
    read_only: bool = False
    create_source: bool = False
    propagation: str = ""
    no_copy: bool = False
    tmpfs_size_bytes: int = 0
    tmpfs_mode: int = 0
    volume_options: dict[str, str] = {}
    volume_labels: dict[str, str] = {}
    tmpfs_options: tuple[str, ...] = ()
    subpath: str = ""
    recursion: str = ""
    relabel: str = ""
    spelled_out: bool = False


class Ulimit(Value, frozen=True):
    """One resource limit by docker's name ("nofile"); -1 means unlimited."""

    name: str = ""
    soft: int = 0
    hard: int = 0


class DeviceMapping(Value, frozen=True):
    """A device of the host in a container; an empty `target` is the same path, empty `permissions` are all."""

    source: str = ""
    target: str = ""
    permissions: str = ""


class LogConfig(Value, frozen=True):
    """Where output goes: an empty `driver` is "json-file"."""

    driver: str = ""
    options: dict[str, str] = {}


class Throttle(Value, frozen=True):
    """How much of a block device at most: `kind` is read_bps, write_bps, read_iops or write_iops."""

    kind: str = ""
    path: str = ""
    rate: int = 0


class DeviceWeight(Value, frozen=True):
    """A block device's share of its time, 10 to 1000; 0 is the container's `io_weight`."""

    path: str = ""
    weight: int = 0


class Tuning(Value, frozen=True):
    """How the kernel shares a host among containers, besides the amounts. 0 and empty mean its own way;
    `memory_swap_bytes` is memory and swap together, -1 no limit."""

    cpu_shares: int = 0
    cpu_period_us: int = 0
    cpu_quota_us: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    memory_reservation_bytes: int = 0
    memory_swap_bytes: int = 0
    io_weight: int = 0
    throttles: tuple[Throttle, ...] = ()
    oom_kill_disable: bool = False
    memory_swappiness: int | None = None
    device_weights: tuple[DeviceWeight, ...] = ()
    cpu_realtime_period_us: int = 0
    cpu_realtime_runtime_us: int = 0


class ContainerSpec(Value, frozen=True):
    """What runs. `entrypoint` replaces the image's only with `entrypoint_set`; `args` replace its CMD when given."""

    image: str = ""
    entrypoint: tuple[str, ...] = ()
    entrypoint_set: bool = False
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    hostname: str = ""
    workdir: str = ""
    user: str = ""
    groups: tuple[str, ...] = ()
    tty: bool = False
    open_stdin: bool = False
    read_only: bool = False
    init: bool = False
    privileged: bool = False
    mounts: tuple[Mount, ...] = ()
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    ulimits: tuple[Ulimit, ...] = ()
    sysctls: dict[str, str] = {}
    stop_signal: str = ""
    stop_grace_ns: int = 0
    shm_size_bytes: int = 0
    hosts: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    health: HealthCheck = HealthCheck()
    volumes_from: tuple[str, ...] = ()
    pid_mode: str = ""
    ipc_mode: str = ""
    uts_mode: str = ""
    cgroupns_mode: str = ""
    devices: tuple[DeviceMapping, ...] = ()
    device_rules: tuple[str, ...] = ()
    no_new_privileges: bool = False
    seccomp: str = ""
    unmasked: bool = False
    oom_score_adj: int = 0
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    domainname: str = ""
    log: LogConfig = LogConfig()
    exposed_ports: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    annotations: dict[str, str] = {}
    cgroup_parent: str = ""
    runtime: str = ""
    userns_mode: str = ""


class RestartCondition(enum.IntEnum):
    NONE = 1
    ON_FAILURE = 2
    ANY = 3
    UNLESS_STOPPED = 4


class RestartPolicy(Value, frozen=True):
    """When to start again. `max_attempts` and `window_ns` of 0 mean no limit."""

    condition: RestartCondition = RestartCondition.NONE
    delay_ns: int = 0
    max_attempts: int = 0
    window_ns: int = 0


class ContainerState(enum.IntEnum):
    CREATED = 1
    RUNNING = 2
    PAUSED = 3
    RESTARTING = 4
    EXITED = 5
    DEAD = 6


class ContainerStatus(Value, frozen=True):
    """What is. `error` says why the last start failed; `addresses` and `ports` hold while it runs."""

    state: ContainerState = ContainerState.CREATED
    pid: int = 0
    exit_code: int = 0
    oom_killed: bool = False
    error: str = ""
    started_at_ns: int = 0
    finished_at_ns: int = 0
    restart_count: int = 0
    addresses: tuple[Address, ...] = ()
    ports: tuple[Port, ...] = ()
    health: Health = Health()


class Origin(Value, frozen=True):
    """How its client went about making a container: `-P`, the streams with which it stays, the file that has the id."""

    publish_all: bool = False
    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    id_file: str = ""


class Container(Value, frozen=True):
    """`argv`, `env`, `workdir`, `user`, `image_id`, `mounts`, `health`, `links` are what `spec` came to with its image
    and this host. With a user namespace its ids are the host's from `first_id` on."""

    meta: Meta = Meta()
    name: str = ""
    spec: ContainerSpec = ContainerSpec()
    limits: Resources = Resources()
    restart: RestartPolicy = RestartPolicy()
    networks: tuple[NetworkAttachment, ...] = ()
    ports: tuple[Port, ...] = ()
    auto_remove: bool = False
    task_id: str = ""
    image_id: str = ""
    argv: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    workdir: str = ""
    user: str = ""
    mounts: tuple[Mount, ...] = ()
    log_path: str = ""
    status: ContainerStatus = ContainerStatus()
    health: HealthCheck = HealthCheck()
    tuning: Tuning = Tuning()
    links: tuple[str, ...] = ()
    first_id: int = 0
    origin: Origin = Origin()
