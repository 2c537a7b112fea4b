"""How a container stands apart from its host, as its options say: whose namespaces, which devices, which profile, what
the kernel gives it. Pure: what can never be is refused here, in docker's words; `bundle` writes the rest down.
"""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Collection
from typing import Any

from shoal.defaults import MIN_MEMORY_BYTES
from shoal.errors import InvalidArgument, Unsupported
from shoal.model.base import Resources
from shoal.model.container import Container, ContainerSpec, LogConfig, Tuning
from shoal.names import is_device_name

HOST, PRIVATE, NONE, CONTAINER_MODE = "host", "private", "none", "container:"
SHAREABLE = "shareable"
AUTO = "auto"
UNCONFINED = "unconfined"
NO_LOG, JOURNAL_LOG = "none", "journald"
_RULE = re.compile(r"([acb]) ((?:\d+|\*)):((?:\d+|\*)) ([rwm]{1,3})")
_SET = re.compile(r"\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*")
_SIZE = re.compile(r"(\d{1,15})([kmg]?)b?", re.IGNORECASE)
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_LOG_DEFAULTS = {"json-file": (0, 1), "local": (20 << 20, 5)}
_OWN_ANNOTATIONS = "shoal."
_LOG_DETAILS = ("labels", "env")
_THROTTLES = ("read_bps", "write_bps", "read_iops", "write_iops")
# Docker's names of architectures in the conditions of a profile.
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def check_isolation(container: Container, *, cpus: int) -> None:
    """Raises InvalidArgument, and Unsupported for what is known and not done."""
    spec = container.spec
    _check_modes(spec)
    _check_devices(spec)
    if not -1000 <= spec.oom_score_adj <= 1000:
        raise InvalidArgument(f"Invalid value {spec.oom_score_adj}, range for oom score adj is [-1000, 1000]")
    if spec.seccomp not in ("", UNCONFINED):
        seccomp_profile(spec.seccomp, ())
    log_limits(spec.log)
    for name in spec.annotations:
        if not name or name.startswith(_OWN_ANNOTATIONS):
            raise InvalidArgument(f"invalid annotation: {name!r}", hint=f"names of {_OWN_ANNOTATIONS} are ours")
    if ".." in spec.cgroup_parent.split("/") or "\0" in spec.cgroup_parent:
        raise InvalidArgument(f"invalid cgroup parent: {spec.cgroup_parent!r}")
    check_tuning(container.tuning, container.limits, cpus=cpus)


def check_tuning(tuning: Tuning, limits: Resources, *, cpus: int) -> None:
    """Raises InvalidArgument in docker's words."""
    if limits.nano_cpus and (tuning.cpu_period_us or tuning.cpu_quota_us):
        raise InvalidArgument("Conflicting options: Nano CPUs and CPU Period or CPU Quota cannot both be set")
    if tuning.cpu_period_us and not 1000 <= tuning.cpu_period_us <= 1_000_000:
        raise InvalidArgument("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if 0 < tuning.cpu_quota_us < 1000:
        raise InvalidArgument("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    if 0 < tuning.cpu_realtime_period_us < tuning.cpu_realtime_runtime_us:
        raise InvalidArgument("cpu real-time runtime cannot be higher than cpu real-time period")
    if tuning.memory_swap_bytes > 0:
        if not limits.memory_bytes:
            raise InvalidArgument("You should always set the Memory limit when using Memoryswap limit, see usage")
        if tuning.memory_swap_bytes < limits.memory_bytes:
            raise InvalidArgument("Minimum memoryswap limit should be larger than memory limit, see usage")
    if 0 < tuning.memory_reservation_bytes < MIN_MEMORY_BYTES:
        raise InvalidArgument(f"Minimum memory reservation allowed is {MIN_MEMORY_BYTES >> 20}MB")
    if limits.memory_bytes and tuning.memory_reservation_bytes > limits.memory_bytes:
        raise InvalidArgument("Minimum memory limit can not be less than memory reservation limit, see usage")
    if tuning.memory_swappiness is not None and tuning.memory_swappiness > 100:
        raise InvalidArgument(f"Invalid value: {tuning.memory_swappiness}, valid memory swappiness range is 0-100")
    if tuning.io_weight and not 10 <= tuning.io_weight <= 1000:
        raise InvalidArgument("Range of blkio weight is from 10 to 1000")
    _check_set(tuning.cpuset_cpus, "CPUs", cpus)
    _check_set(tuning.cpuset_mems, "memory nodes", 1 << 10)
    for each in tuning.throttles:
        if each.kind not in _THROTTLES or each.rate <= 0 or not each.path.startswith("/"):
            raise InvalidArgument(f"invalid rate for device: {each.path}:{each.rate}")
    for share in tuning.device_weights:
        if not share.path.startswith("/") or (share.weight and not 10 <= share.weight <= 1000):
            raise InvalidArgument(f"invalid weight for device: {share.path}:{share.weight}")


def device_rules(spec: ContainerSpec) -> list[dict[str, Any]]:
    """`--device-cgroup-rule` as OCI has it."""
    found: list[dict[str, Any]] = []
    for text in spec.device_rules:
        kind, major, minor, access = _rule(text).groups()
        numbers = {"major": major, "minor": minor}
        known = {name: int(number) for name, number in numbers.items() if number != "*"}
        found.append({"allow": True, "type": kind, "access": access, **known})
    return found


def log_limits(log: LogConfig) -> tuple[int, int]:
    """(bytes of a file before it is rotated, 0 for never; how many files are kept)."""
    driver = log.driver or "json-file"
    if driver == NO_LOG:
        if log.options:
            raise InvalidArgument(f"unknown log opt '{next(iter(log.options))}' for none log driver")
        return 0, 1
    if driver == JOURNAL_LOG:
        return 0, 1
    if driver not in _LOG_DEFAULTS:
        raise Unsupported(f"log driver {driver} is not supported yet", hint="use json-file, local, journald or none")
    max_bytes, max_files = _LOG_DEFAULTS[driver]
    for name, value in log.options.items():
        if name == "max-size":
            max_bytes = _bytes(value)
        elif name in _LOG_DETAILS and driver == "json-file":
            continue  # what `logs --details` shows
        elif name == "max-file":
            if not value.isdecimal() or not 0 < int(value[:9]) < 10_000:
                raise InvalidArgument("max-file cannot be less than 1")
            max_files = int(value)
        else:
            raise InvalidArgument(f"unknown log opt '{name}' for {driver} log driver")
    if max_files > 1 and not max_bytes:
        raise InvalidArgument("max-file cannot be specified when max-size is not")
    return max_bytes, max_files


def seccomp_profile(text: str, granted: Collection[str]) -> dict[str, Any]:
    """A profile as docker's users write it, for a process with these capabilities, as OCI has it.

    Raises InvalidArgument for what is no profile.
    """
    try:
        profile = json.loads(text)
        rules = [_syscall(rule) for rule in profile.get("syscalls") or () if _applies(rule, granted)]
        made = {"defaultAction": profile["defaultAction"], "syscalls": rules}
        if profile.get("defaultErrnoRet") is not None:
            made["defaultErrnoRet"] = profile["defaultErrnoRet"]
        families = [
            (each["architecture"], *(each.get("subArchitectures") or ())) for each in profile.get("archMap") or ()
        ]
        architectures = [name for family in families for name in family] or profile.get("architectures")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidArgument(f"Decoding seccomp profile failed: {error}") from error
    return {**made, "architectures": architectures} if architectures else made


def _check_modes(spec: ContainerSpec) -> None:
    if spec.pid_mode not in ("", HOST) and not spec.pid_mode.startswith(CONTAINER_MODE):
        raise InvalidArgument(f"--pid: invalid PID mode: {spec.pid_mode}")
    if spec.ipc_mode not in ("", PRIVATE, SHAREABLE, HOST, NONE) and not spec.ipc_mode.startswith(CONTAINER_MODE):
        raise InvalidArgument(f"invalid IPC mode: {spec.ipc_mode}")
    if spec.uts_mode not in ("", HOST):
        raise InvalidArgument(f"--uts: invalid UTS mode: {spec.uts_mode}")
    if spec.uts_mode == HOST and (spec.hostname or spec.domainname):
        raise InvalidArgument("conflicting options: hostname and the UTS mode")
    if spec.userns_mode not in ("", HOST, AUTO):
        raise InvalidArgument("--userns: invalid USER mode", hint=f"there are {HOST} and {AUTO}")
    if spec.userns_mode == AUTO and spec.privileged:
        raise InvalidArgument(
            "privileged mode is incompatible with user namespaces",
            hint="run it in the host's with --userns=host when it has to be privileged",
        )
    if spec.cgroupns_mode not in ("", PRIVATE, HOST):
        raise InvalidArgument(f"--cgroupns: invalid CGROUP mode: {spec.cgroupns_mode}")


def _check_devices(spec: ContainerSpec) -> None:
    for each in spec.devices:
        if is_device_name(each.source) and not each.target:
            continue
        if not each.source.startswith("/") or (each.target and not each.target.startswith("/")):
            raise InvalidArgument(f"{each.target or each.source} is not an absolute path")
        if set(each.permissions) - set("rwm"):
            raise InvalidArgument(f"invalid device mode: {each.permissions}")
    for text in spec.device_rules:
        _rule(text)


def _rule(text: str) -> re.Match[str]:
    found = _RULE.fullmatch(text)
    if found is None:
        raise InvalidArgument(f"invalid device cgroup format '{text}'", hint="it looks like 'c 1:3 rwm'")
    return found


def _check_set(text: str, what: str, count: int) -> None:
    if not text:
        return
    if not _SET.fullmatch(text) or len(text) > 4096:
        raise InvalidArgument(f"Invalid value {text} for cpuset {what}")
    if any(int(number) >= count for number in re.split("[,-]", text)):
        raise InvalidArgument(f"Requested {what} are not available - requested {text}, available: 0-{count - 1}")


def _bytes(text: str) -> int:
    found = _SIZE.fullmatch(text)
    if found is None or not int(found[1]):
        raise InvalidArgument(f"invalid value for max-size: {text}", hint="it looks like 10m")
    return int(found[1]) * _UNITS[found[2].lower()]


def _applies(rule: dict[str, Any], granted: Collection[str]) -> bool:
    """Docker's conditions of a rule. What asks for a newer kernel than its rules knew is taken as met."""
    here = _ARCHITECTURES.get(platform.machine(), platform.machine())
    wanted, unwanted = rule.get("includes") or {}, rule.get("excludes") or {}
    if wanted.get("arches") and here not in wanted["arches"]:
        return False
    if not set(wanted.get("caps") or ()) <= set(granted):
        return False
    return here not in (unwanted.get("arches") or ()) and not set(unwanted.get("caps") or ()) & set(granted)


def _syscall(rule: dict[str, Any]) -> dict[str, Any]:
    names = rule.get("names") or [rule["name"]]
    kept = {key: rule[key] for key in ("args", "errnoRet") if rule.get(key) is not None}
    return {"names": names, "action": rule["action"], **kept}
