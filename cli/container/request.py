"""From the flags of `run` and `create` to the container that is asked for. Pure, but for files that flags name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

from cli.container.flags import ContainerFlags, OnceFlags, TuningFlags
from cli.container.health import health_check
from cli.parse import isolation, pair
from shoal.errors import Conflict, InvalidArgument, Unsupported
from shoal.v1.engine_pb2 import CreateContainerRequest
from shoal.v1.types_pb2 import (
    RESTART_CONDITION_NONE,
    ContainerSpec,
    LogConfig,
    Mount,
    NetworkAttachment,
    Origin,
    Port,
    Resources,
    RestartPolicy,
    Tuning,
)

_SECOND_NS = 10**9


def create_request(
    flags: ContainerFlags, image: str, args: Sequence[str], *, detached: bool = False
) -> CreateContainerRequest:
    """`detached`: nobody stays with it. Raises InvalidArgument for flags that contradict each other."""
    policy = flags.restart or RestartPolicy(condition=RESTART_CONDITION_NONE)
    if flags.rm and policy.condition != RESTART_CONDITION_NONE:
        raise InvalidArgument("conflicting options: cannot specify both --restart and --rm")
    if flags.pull not in ("always", "missing", "never"):
        raise InvalidArgument(f'invalid pull option: \'{flags.pull}\': must be one of "always", "missing" or "never"')
    if not flags.disable_content_trust:
        raise Unsupported("--disable-content-trust=false is not supported: signatures of images are not looked at")
    ports = [port for group in flags.publish for port in group]
    networks = _networks(flags)
    _check_modes(networks, ports, flags)
    return CreateContainerRequest(
        name=flags.name,
        spec=_spec(flags, image, args),
        tuning=_once(flags, tuning(flags)),
        limits=Resources(nano_cpus=flags.cpus, memory_bytes=flags.memory, pids=max(flags.pids_limit, 0)),
        restart=policy,
        networks=networks,
        ports=ports,
        auto_remove=flags.rm,
        publish_all=flags.publish_all,
        origin=_origin(flags, detached=detached),
        platform=flags.platform,
    )


def _origin(flags: ContainerFlags, *, detached: bool) -> Origin:
    streams = () if detached else flags.attach or ("stdout", "stderr")
    return Origin(
        publish_all=flags.publish_all,
        stdin="stdin" in streams or (flags.interactive and not detached),
        stdout="stdout" in streams,
        stderr="stderr" in streams,
        id_file=flags.cidfile,
    )


def stop_grace(timeout_s: int | None) -> int:
    """Nanoseconds for the spec, where 0 means the default: no patience at all is the least above it, and what is
    negative never ends."""
    if timeout_s is None:
        return 0
    return timeout_s * _SECOND_NS or 1


def _spec(flags: ContainerFlags, image: str, args: Sequence[str]) -> ContainerSpec:
    spec = ContainerSpec(
        image=image,
        entrypoint=[flags.entrypoint] if flags.entrypoint else [],
        entrypoint_set=flags.entrypoint is not None,
        args=args,
        env=pair.environment(flags.env, flags.env_file, pair.own_environment()),
        labels=pair.labels([*pair.lines_of(flags.label_file), *flags.label]),
        annotations=pair.options(flags.annotation, "annotation"),
        cgroup_parent=flags.cgroup_parent,
        hostname=flags.hostname,
        workdir=flags.workdir,
        user=flags.user,
        groups=flags.group_add,
        tty=flags.tty,
        open_stdin=flags.interactive,
        read_only=flags.read_only,
        init=flags.init,
        privileged=flags.privileged,
        mounts=mounts([*flags.volume, *flags.mount, *flags.tmpfs]),
        cap_add=flags.cap_add,
        cap_drop=flags.cap_drop,
        ulimits=flags.ulimit,
        sysctls=pair.sysctls(flags.sysctl),
        stop_signal=flags.stop_signal,
        stop_grace_ns=stop_grace(flags.stop_timeout),
        shm_size_bytes=flags.shm_size,
        hosts=flags.add_host,
        dns=flags.dns,
        health=health_check(flags),
        volumes_from=flags.volumes_from,
        links=flags.link,
        pid_mode=flags.pid,
        ipc_mode=flags.ipc,
        uts_mode=flags.uts,
        cgroupns_mode=flags.cgroupns,
        userns_mode=flags.userns,
        runtime=flags.runtime,
        devices=[*flags.device, *chain.from_iterable(flags.gpus)],
        device_rules=flags.device_cgroup_rule,
        oom_score_adj=flags.oom_score_adj,
        dns_search=flags.dns_search,
        dns_options=flags.dns_option,
        domainname=flags.domainname,
        log=LogConfig(driver=flags.log_driver, options=pair.options(flags.log_opt, "log opt")),
        exposed_ports=[port for group in flags.expose for port in group],
    )
    isolation.security(spec, flags.security_opt)
    return spec


def tuning(flags: TuningFlags) -> Tuning:
    """What `run` and `update` share."""
    for name, value in (
        ("CPU shares", flags.cpu_shares),
        ("CPU cfs period", flags.cpu_period),
        ("CPU real-time period", flags.cpu_rt_period),
        ("CPU real-time runtime", flags.cpu_rt_runtime),
    ):
        if not 0 <= value < 1 << 32:
            raise Conflict(f"{name} {value} cannot be: it is a number from 0 up, below 2^32")
    return Tuning(
        cpu_shares=flags.cpu_shares,
        cpu_period_us=flags.cpu_period,
        cpu_quota_us=flags.cpu_quota,
        cpu_realtime_period_us=flags.cpu_rt_period,
        cpu_realtime_runtime_us=flags.cpu_rt_runtime,
        cpuset_cpus=flags.cpuset_cpus,
        cpuset_mems=flags.cpuset_mems,
        memory_reservation_bytes=flags.memory_reservation,
        memory_swap_bytes=flags.memory_swap,
        io_weight=flags.blkio_weight,
    )


def _once(flags: OnceFlags, out: Tuning) -> Tuning:
    out.oom_kill_disable = flags.oom_kill_disable
    if flags.memory_swappiness is not None:
        out.memory_swappiness = flags.memory_swappiness
    rates = {
        "read_bps": flags.device_read_bps,
        "write_bps": flags.device_write_bps,
        "read_iops": flags.device_read_iops,
        "write_iops": flags.device_write_iops,
    }
    out.throttles.extend(isolation.throttles(rates))
    out.device_weights.extend(flags.blkio_weight_device)
    return out


def mounts(wanted: Iterable[Mount]) -> list[Mount]:
    """`wanted`, each target once."""
    held: dict[str, Mount] = {}
    for each in wanted:
        if each.target in held:
            raise InvalidArgument(f"Duplicate mount point: {each.target}")
        held[each.target] = each
    return list(held.values())


def _networks(flags: ContainerFlags) -> list[NetworkAttachment]:
    networks = list(flags.network) or [NetworkAttachment(network="bridge")]
    given = {"--network-alias": flags.network_alias, "--ip": flags.ip, "--mac-address": flags.mac_address}
    named = [name for name, value in given.items() if value]
    if named and len(networks) > 1:
        raise InvalidArgument(
            f"conflicting options: cannot specify both {named[0]} and several --network",
            hint="give each its own: --network name=NET,alias=ALIAS,ip=ADDRESS,mac-address=MAC",
        )
    networks[0].aliases.extend(flags.network_alias)
    networks[0].address = flags.ip or networks[0].address
    networks[0].mac = flags.mac_address or networks[0].mac
    return networks


def _check_modes(networks: Sequence[NetworkAttachment], ports: Sequence[Port], flags: ContainerFlags) -> None:
    """Docker's conflicts of a network that is not the container's own."""
    for network in networks:
        special = network.network in ("host", "none") or network.network.startswith("container:")
        if special and (network.address or network.mac):
            what = "IP address" if network.address else "mac-address"
            raise InvalidArgument(f"conflicting options: {what} and the network mode")
        if special and len(networks) > 1:
            raise InvalidArgument(f"conflicting options: cannot attach both {network.network} and other networks")
        if not network.network.startswith("container:"):
            continue
        what = ""
        if ports or flags.publish_all:
            what = "port publishing"
        elif flags.hostname:
            what = "hostname"
        elif flags.add_host:
            what = "custom host-to-IP mapping"
        elif flags.dns:
            what = "dns"
        if what:
            raise InvalidArgument(f"conflicting options: {what} and the container type network mode")
