"""A `process` of the configuration: what is run, as whom, with which rights and limits."""

from __future__ import annotations

import resource
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from agent.runtime import capability
from agent.runtime.spec.refusal import absolute, checked, invalid, only, refuse

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_POLICIES = {"SCHED_OTHER": 0, "SCHED_FIFO": 1, "SCHED_RR": 2, "SCHED_BATCH": 3, "SCHED_IDLE": 5, "SCHED_DEADLINE": 6}
_SCHEDULER_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
_IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
_RLIMIT_LOCKS = 10  # which Python does not know


class Scheduler(NamedTuple):
    """struct sched_attr of sched_setattr(2), without its size."""

    policy: int
    flags: int
    nice: int
    priority: int
    runtime: int
    deadline: int
    period: int


class Process(NamedTuple):
    args: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    umask: int
    bounding: int
    effective: int
    permitted: int
    inheritable: int
    ambient: int
    rlimits: tuple[tuple[int, int, int], ...]  # number, soft, hard
    no_new_privileges: bool
    oom_score_adj: int | None
    apparmor: str = ""
    selinux: str = ""
    scheduler: Scheduler | None = None
    io_priority: int | None = None  # class and level as ioprio_set(2) has them

    @property
    def path(self) -> str:
        """Where the command is looked up: PATH of the process's own environment."""
        return next((item[5:] for item in reversed(self.env) if item.startswith("PATH=")), PATH)


def parse_process(process: Mapping[str, Any]) -> Process:
    """The typed form of an OCI `process`. Raises Failure naming the field that is wrong or not supported."""
    return checked("process: ", _process, process)


def _process(process: Mapping[str, Any]) -> Process:
    only(
        "process.",
        process,
        "terminal consoleSize user args env cwd capabilities rlimits noNewPrivileges oomScoreAdj apparmorProfile"
        " selinuxLabel scheduler ioPriority",
    )
    user = process.get("user") or {}
    only("process.user.", user, "uid gid additionalGids umask username")
    args, env = tuple(process["args"]), tuple(process.get("env") or ())
    if not args or not args[0]:
        raise invalid("process.args is empty: no command specified")
    if any("\0" in text for text in (*args, *env)):
        raise invalid("an argument or environment variable contains a NUL byte")
    for number in (user.get("uid", 0), user.get("gid", 0), *(user.get("additionalGids") or ())):
        if not 0 <= number < (1 << 32) - 1:
            raise invalid(f"user or group id {number} is out of range")
    capabilities = process.get("capabilities") or {}
    sets = {
        name: _capabilities(capabilities.get(name) or ())
        for name in ("bounding", "effective", "permitted", "inheritable", "ambient")
    }
    return Process(
        args=args,
        env=env,
        cwd=absolute(process.get("cwd") or "/"),
        uid=user.get("uid", 0),
        gid=user.get("gid", 0),
        groups=tuple(user.get("additionalGids") or ()),
        umask=user.get("umask", 0o022),
        rlimits=tuple(_rlimit(entry) for entry in process.get("rlimits") or ()),
        no_new_privileges=bool(process.get("noNewPrivileges")),
        oom_score_adj=process.get("oomScoreAdj"),
        apparmor=process.get("apparmorProfile") or "",
        selinux=process.get("selinuxLabel") or "",
        scheduler=_scheduler(process.get("scheduler")),
        io_priority=_io_priority(process.get("ioPriority")),
        **sets,
    )


def _capabilities(names: Iterable[str]) -> int:
    try:
        return capability.mask_of(names)
    except KeyError as error:
        raise invalid(f"unknown capability {error.args[0]}") from error


def _rlimit(entry: Mapping[str, Any]) -> tuple[int, int, int]:
    kind = entry["type"]
    number = getattr(resource, kind, None) if kind.startswith("RLIMIT_") else None
    if kind == "RLIMIT_LOCKS":
        number = _RLIMIT_LOCKS
    if number is None:
        raise invalid(f"unknown limit {kind}")
    return int(number), _unsigned(entry["soft"]), _unsigned(entry["hard"])


def _unsigned(value: int) -> int:
    return value & ((1 << 64) - 1)  # -1 is how some write "unlimited"


def _scheduler(entry: Mapping[str, Any] | None) -> Scheduler | None:
    if not entry:
        return None
    only("process.scheduler.", entry, "policy nice priority flags runtime deadline period")
    if entry["policy"] not in _POLICIES:
        raise refuse(f"scheduling policy {entry['policy']}")
    flags = 0
    for flag in entry.get("flags") or ():
        if flag not in _SCHEDULER_FLAGS:
            raise refuse(f"scheduling flag {flag}")
        flags |= _SCHEDULER_FLAGS[flag]
    numbers = (entry.get(name) or 0 for name in ("nice", "priority", "runtime", "deadline", "period"))
    return Scheduler(_POLICIES[entry["policy"]], flags, *numbers)


def _io_priority(entry: Mapping[str, Any] | None) -> int | None:
    if not entry:
        return None
    if entry["class"] not in _IO_CLASSES:
        raise refuse(f"I/O priority class {entry['class']}")
    return _IO_CLASSES[entry["class"]] << 13 | int(entry.get("priority", 0))
