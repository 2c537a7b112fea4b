"""A service as `docker service inspect` shows it, and the parts of it that a task shows too."""

from __future__ import annotations

from typing import Any

from cli.document.common import (
    amount,
    devices,
    enum_word,
    health_check,
    mount_type,
    record,
    security_options,
    service_port,
)
from shoal.v1.types_pb2 import (
    ENDPOINT_MODE_DNSRR,
    SERVICE_MODE_GLOBAL,
    ContainerSpec,
    LogConfig,
    RestartCondition,
    Service,
    ServiceSpec,
    TaskSpec,
    UpdateOrder,
)


def document(service: Service) -> dict[str, Any]:
    out = {
        **record(service.meta),
        "Spec": _spec(service.spec),
        "Endpoint": {
            "Spec": {
                "Mode": _endpoint_mode(service.spec),
                "Ports": [service_port(each) for each in service.spec.ports],
            },
            "Ports": [service_port(each) for each in service.ports],
            "VirtualIPs": [{"NetworkID": each.network_id, "Addr": each.address} for each in service.addresses],
        },
        "ImageDigest": service.image_digest,
    }
    if service.HasField("previous"):
        out["PreviousSpec"] = _spec(service.previous)
    return out


def _spec(spec: ServiceSpec) -> dict[str, Any]:
    everywhere = spec.mode == SERVICE_MODE_GLOBAL
    return {
        "Name": spec.name,
        "Labels": dict(spec.labels),
        "TaskTemplate": task_spec(spec.task),
        "Mode": {"Global": {}} if everywhere else {"Replicated": {"Replicas": spec.replicas}},
        "UpdateConfig": {
            "Parallelism": spec.update.parallelism,
            "Delay": spec.update.delay_ns,
            "Order": enum_word(UpdateOrder.Name(spec.update.order), "UPDATE_ORDER_"),
        },
        "EndpointSpec": {"Mode": _endpoint_mode(spec), "Ports": [service_port(each) for each in spec.ports]},
    }


def task_spec(task: TaskSpec) -> dict[str, Any]:
    container = task.container
    return {
        "ContainerSpec": {
            "Image": container.image,
            "Command": list(container.entrypoint),
            "Args": list(container.args),
            "Env": list(container.env),
            "Labels": dict(container.labels),
            "Hostname": container.hostname,
            "Dir": container.workdir,
            "User": container.user,
            "Groups": list(container.groups),
            "TTY": container.tty,
            "Init": container.init,
            "ReadOnly": container.read_only,
            "StopSignal": container.stop_signal,
            "StopGracePeriod": container.stop_grace_ns or 10 * 10**9,
            "Hosts": list(container.hosts),
            "DNSConfig": {
                "Nameservers": list(container.dns),
                "Search": list(container.dns_search),
                "Options": list(container.dns_options),
            },
            "CapabilityAdd": list(container.cap_add),
            "CapabilityDrop": list(container.cap_drop),
            "Sysctls": dict(container.sysctls),
            "OomScoreAdj": container.oom_score_adj,
            **_isolation(container),
            **health_check(container.health),
            "Ulimits": [{"Name": each.name, "Hard": each.hard, "Soft": each.soft} for each in container.ulimits],
            "Mounts": [
                {
                    "Type": mount_type(each),
                    "Source": each.source,
                    "Target": each.target,
                    "ReadOnly": each.read_only,
                }
                for each in container.mounts
            ],
        },
        "Resources": {"Limits": amount(task.limits, pids=True), "Reservations": amount(task.reservations)},
        "RestartPolicy": {
            "Condition": enum_word(RestartCondition.Name(task.restart.condition), "RESTART_CONDITION_"),
            "Delay": task.restart.delay_ns,
            "MaxAttempts": task.restart.max_attempts,
            "Window": task.restart.window_ns,
        },
        "Placement": {
            "Constraints": list(task.placement.constraints),
            "Preferences": list(task.placement.preferences),
            "MaxReplicas": task.placement.max_per_node,
        },
        **_log_driver(container.log),
        "Networks": [{"Target": each.network, "Aliases": list(each.aliases)} for each in task.networks],
        "ForceUpdate": task.force_update,
    }


def _log_driver(log: LogConfig) -> dict[str, Any]:
    if not log.driver and not log.options:
        return {}
    return {"LogDriver": {"Name": log.driver or "json-file", "Options": dict(log.options)}}


def _isolation(container: ContainerSpec) -> dict[str, Any]:
    """What docker has no fields for, each where it was asked for."""
    said = {
        "Privileged": container.privileged,
        "Devices": devices(container.devices),
        "DeviceCgroupRules": list(container.device_rules),
        "SecurityOpt": security_options(container),
        "UsernsMode": container.userns_mode,
        "PidMode": container.pid_mode,
        "IpcMode": container.ipc_mode,
        "ShmSize": container.shm_size_bytes,
        "Runtime": container.runtime,
    }
    return {name: value for name, value in said.items() if value}


def _endpoint_mode(spec: ServiceSpec) -> str:
    return "dnsrr" if spec.endpoint_mode == ENDPOINT_MODE_DNSRR else "vip"
