"""From flags to the spec of a service: a new one, or a changed one. Pure, but for env files."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from cli.container.health import health_check
from cli.container.listing import PROTOCOLS
from cli.container.request import mounts, stop_grace
from cli.parse import isolation, pair
from cli.service.flags import CreateFlags, OneFlags, UpdateFlags
from shoal.errors import InvalidArgument, NotFound, Unsupported
from shoal.v1.types_pb2 import (
    ENDPOINT_MODE_VIP,
    RESTART_CONDITION_ANY,
    SERVICE_MODE_GLOBAL,
    SERVICE_MODE_REPLICATED,
    UPDATE_ORDER_STOP_FIRST,
    ContainerSpec,
    HealthCheck,
    LogConfig,
    ServiceSpec,
)

_SECOND_NS = 10**9
T = TypeVar("T")


def created(flags: CreateFlags, image: str, args: Sequence[str]) -> ServiceSpec:
    """The spec that `service create` asks for. Raises InvalidArgument for flags that contradict each other."""
    spec = ServiceSpec(
        name=flags.name, mode=_mode(flags), endpoint_mode=ENDPOINT_MODE_VIP, labels=pair.labels(flags.label)
    )
    spec.replicas = 1 if spec.mode == SERVICE_MODE_REPLICATED else 0
    task, container = spec.task, spec.task.container
    task.restart.condition, task.restart.delay_ns = RESTART_CONDITION_ANY, 5 * _SECOND_NS
    spec.update.parallelism, spec.update.order = 1, UPDATE_ORDER_STOP_FIRST
    container.image = image
    container.args.extend(args)
    container.env.extend(pair.environment(flags.env, flags.env_file, pair.own_environment()))
    container.labels.update(pair.labels(flags.container_label))
    container.groups.extend(flags.group)
    container.mounts.extend(mounts(flags.mount))
    container.hosts.extend(flags.host)
    container.dns.extend(flags.dns)
    container.dns_search.extend(flags.dns_search)
    container.dns_options.extend(flags.dns_option)
    container.devices.extend(flags.device)
    container.device_rules.extend(flags.device_cgroup_rule)
    container.sysctls.update(pair.sysctls(flags.sysctl))
    container.ulimits.extend(flags.ulimit)
    container.cap_add.extend(flags.cap_add)
    container.cap_drop.extend(flags.cap_drop)
    task.networks.extend(flags.network)
    task.placement.constraints.extend(flags.constraint)
    task.placement.preferences.extend(flags.placement_pref)
    spec.ports.extend(port for group in flags.publish for port in group)
    _set_values(spec, flags)
    return spec


def updated(spec: ServiceSpec, flags: UpdateFlags) -> ServiceSpec:
    """`spec` with what `service update` says. Raises NotFound for what is to be taken away and is not there."""
    out = ServiceSpec.FromString(spec.SerializeToString())
    task, container = out.task, out.task.container
    if flags.image is not None:
        container.image = flags.image
    if flags.args is not None:
        del container.args[:]
        container.args.extend(flags.args)
    _change_map(out.labels, "label", pair.labels(flags.label_add), flags.label_rm)
    _change_map(container.labels, "container label", pair.labels(flags.container_label_add), flags.container_label_rm)
    _change_map(container.sysctls, "sysctl", pair.sysctls(flags.sysctl_add), flags.sysctl_rm)
    added = pair.environment(flags.env_add, (), pair.own_environment())
    _change(container.env, "variable", added, flags.env_rm, lambda each: each.partition("=")[0])
    _change(container.mounts, "mount at", flags.mount_add, flags.mount_rm, lambda each: each.target)
    _change(container.groups, "group", flags.group_add, flags.group_rm)
    _change(container.hosts, "host", flags.host_add, flags.host_rm)
    _change(container.dns, "name server", flags.dns_add, flags.dns_rm)
    _change(container.dns_search, "search domain", flags.dns_search_add, flags.dns_search_rm)
    _change(container.dns_options, "DNS option", flags.dns_option_add, flags.dns_option_rm)
    _change(container.devices, "device", flags.device_add, flags.device_rm, lambda each: each.source)
    _change(container.device_rules, "device rule", flags.device_cgroup_rule_add, flags.device_cgroup_rule_rm)
    _change(container.ulimits, "ulimit", flags.ulimit_add, flags.ulimit_rm, lambda each: each.name)
    _change(task.networks, "network", flags.network_add, flags.network_rm, lambda each: each.network)
    _change(task.placement.constraints, "constraint", flags.constraint_add, flags.constraint_rm)
    _change(task.placement.preferences, "placement preference", flags.placement_pref_add, flags.placement_pref_rm)
    # One port of the container may be published several times: what is added takes nothing's place.
    ports = [port for group in flags.publish_add for port in group]
    _change(out.ports, "published port", (), flags.publish_rm, lambda each: f"{each.target}/{PROTOCOLS[each.protocol]}")
    _change(out.ports, "published port", ports, (), lambda each: each.SerializeToString(deterministic=True))
    _swap(container.cap_add, container.cap_drop, flags.cap_add, flags.cap_drop)
    if flags.force:
        task.force_update += 1
    _set_values(out, flags)
    return out


def _mode(flags: CreateFlags) -> Any:
    if flags.mode in ("replicated-job", "global-job"):
        raise Unsupported(f"service mode {flags.mode} is not supported yet", hint="use replicated or global")
    if flags.mode not in ("replicated", "global"):
        raise InvalidArgument(f"unknown mode: {flags.mode}, only replicated and global supported")
    return SERVICE_MODE_GLOBAL if flags.mode == "global" else SERVICE_MODE_REPLICATED


def _set_values(spec: ServiceSpec, flags: OneFlags) -> None:
    """What was given, and nothing else."""
    task, container = spec.task, spec.task.container
    if spec.mode == SERVICE_MODE_GLOBAL and (flags.replicas is not None or flags.replicas_max_per_node is not None):
        raise InvalidArgument("replicas can only be used with replicated mode")
    for target, field, value in (
        (spec, "replicas", flags.replicas),
        (spec, "endpoint_mode", flags.endpoint_mode),
        (task.placement, "max_per_node", flags.replicas_max_per_node),
        (task.limits, "nano_cpus", flags.limit_cpu),
        (task.limits, "memory_bytes", flags.limit_memory),
        (task.limits, "pids", flags.limit_pids),
        (task.reservations, "nano_cpus", flags.reserve_cpu),
        (task.reservations, "memory_bytes", flags.reserve_memory),
        (task.restart, "condition", flags.restart_condition),
        (task.restart, "delay_ns", flags.restart_delay),
        (task.restart, "max_attempts", flags.restart_max_attempts),
        (task.restart, "window_ns", flags.restart_window),
        (spec.update, "parallelism", flags.update_parallelism),
        (spec.update, "delay_ns", flags.update_delay),
        (spec.update, "order", flags.update_order),
        (container, "hostname", flags.hostname),
        (container, "user", flags.user),
        (container, "workdir", flags.workdir),
        (container, "init", flags.init),
        (container, "read_only", flags.read_only),
        (container, "tty", flags.tty),
        (container, "stop_signal", flags.stop_signal),
        (container, "privileged", flags.privileged),
        (container, "userns_mode", flags.userns),
        (container, "pid_mode", flags.pid),
        (container, "ipc_mode", flags.ipc),
        (container, "shm_size_bytes", flags.shm_size),
        (container, "oom_score_adj", flags.oom_score_adj),
        (container, "runtime", flags.runtime),
    ):
        if value is not None:
            setattr(target, field, value)
    _set_health(container, flags)
    isolation.security(container, flags.security_opt)
    _set_log(container.log, flags)
    if flags.stop_grace_period is not None:
        container.stop_grace_ns = flags.stop_grace_period or stop_grace(0)
    if flags.entrypoint is not None:
        del container.entrypoint[:]
        container.entrypoint.extend(flags.entrypoint)
        container.entrypoint_set = True


def _set_log(log: LogConfig, flags: OneFlags) -> None:
    """Another driver, with its options; or other options for the one that there is."""
    if flags.log_driver is not None or flags.log_opt:
        log.options.clear()
        log.options.update(pair.options(flags.log_opt, "log opt"))
    if flags.log_driver is not None:
        log.driver = flags.log_driver


def _set_health(container: ContainerSpec, flags: OneFlags) -> None:
    """Another test, or other times for the one that there is."""
    wanted = health_check(flags)
    if wanted.test == ["NONE"]:
        container.health.CopyFrom(wanted)
    elif wanted != HealthCheck():
        if flags.health_cmd is not None or container.health.test == ["NONE"]:
            del container.health.test[:]
        container.health.MergeFrom(wanted)


def _change(
    target: Any, what: str, added: Iterable[T], removed: Iterable[str], key: Callable[[T], Any] = lambda each: each
) -> None:
    """Take from a repeated field what is `removed` by `key`, and put `added` in, each instead of its namesake."""
    gone, fresh = list(removed), list(added)
    have = [key(each) for each in target]
    for each in gone:
        if each not in have:
            raise _nothing_to_remove(what, each)
    replaced = {*gone, *(key(each) for each in fresh)}
    kept = [copy.deepcopy(each) for each in target if key(each) not in replaced]
    del target[:]
    target.extend([*kept, *fresh])


def _change_map(target: Any, what: str, added: dict[str, str], removed: Iterable[str]) -> None:
    for key in removed:
        if key not in target:
            raise _nothing_to_remove(what, key)
        del target[key]
    target.update(added)


def _nothing_to_remove(what: str, name: str) -> NotFound:
    return NotFound(f"the service has no {what} {name} to remove")


def _swap(have_add: Any, have_drop: Any, add: Iterable[str], drop: Iterable[str]) -> None:
    """A capability that is added is dropped no more, and the other way round."""
    for wanted, here, there in ((add, have_add, have_drop), (drop, have_drop, have_add)):
        for each in wanted:
            if each in there:
                there.remove(each)
            elif each not in here:
                here.append(each)
