"""An OCI runtime-spec 1.x config as typed values: the edge where JSON ends.

What this runtime does not do is refused by name (hooks, user namespaces, LSM labels, RDT…), so that no option is
silently ignored. `blocks` turns the values into a syscall program, `cgroups` takes the limits.
"""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from agent.kernel import syscalls as sys
from agent.runtime import capability
from agent.runtime.cgroups.base import DeviceRule, Limits, Throttle
from agent.runtime.failure import Failure
from agent.runtime.profile import default_profile

SECCOMP = "shoal.seccomp"  # annotation: "default" asks for docker's default profile
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_NAMESPACES = {
    "pid": sys.CLONE_NEWPID,
    "mount": sys.CLONE_NEWNS,
    "uts": sys.CLONE_NEWUTS,
    "ipc": sys.CLONE_NEWIPC,
    "network": sys.CLONE_NEWNET,
    "cgroup": sys.CLONE_NEWCGROUP,
}
_PROPAGATION = {
    "private": sys.MS_PRIVATE,
    "shared": sys.MS_SHARED,
    "slave": sys.MS_SLAVE,
    "unbindable": sys.MS_UNBINDABLE,
}
# option: (mount(2) flag, set or cleared)
_FLAGS = {
    "ro": (sys.MS_RDONLY, True),
    "rw": (sys.MS_RDONLY, False),
    "nosuid": (sys.MS_NOSUID, True),
    "suid": (sys.MS_NOSUID, False),
    "nodev": (sys.MS_NODEV, True),
    "dev": (sys.MS_NODEV, False),
    "noexec": (sys.MS_NOEXEC, True),
    "exec": (sys.MS_NOEXEC, False),
    "sync": (sys.MS_SYNCHRONOUS, True),
    "async": (sys.MS_SYNCHRONOUS, False),
    "dirsync": (sys.MS_DIRSYNC, True),
    "noatime": (sys.MS_NOATIME, True),
    "atime": (sys.MS_NOATIME, False),
    "nodiratime": (sys.MS_NODIRATIME, True),
    "diratime": (sys.MS_NODIRATIME, False),
    "relatime": (sys.MS_RELATIME, True),
    "norelatime": (sys.MS_RELATIME, False),
    "strictatime": (sys.MS_STRICTATIME, True),
    "nostrictatime": (sys.MS_STRICTATIME, False),
    "defaults": (0, True),
}
# /proc is trusted by the kernel's own checks: only these files of it may be covered (lxcfs), as runc has it.
_PROC_FILES = {
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/net/dev",
    "/proc/sys/kernel/ns_last_pid",
}
_IPC_SYSCTLS = ("kernel.msg", "kernel.sem", "kernel.shm", "fs.mqueue.")
_DEVICE_TYPES = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}


class Mount(NamedTuple):
    """One entry of `mounts`. `propagation` 0 means the default, private."""

    destination: str
    kind: str  # a filesystem type, or "bind"
    source: str
    set_flags: int = 0
    clear_flags: int = 0
    data: str = ""
    recursive: bool = False  # rbind
    deep_readonly: bool = False  # rro: submounts too
    propagation: int = 0
    deep_propagation: bool = False


class Device(NamedTuple):
    path: str
    mode: int  # type and permissions, as mknod(2)
    number: int
    uid: int = 0
    gid: int = 0


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

    @property
    def path(self) -> str:
        """Where the command is looked up: PATH of the process's own environment."""
        return next((item[5:] for item in reversed(self.env) if item.startswith("PATH=")), PATH)


class Spec(NamedTuple):
    process: Process
    hostname: str
    domainname: str
    readonly_root: bool
    mounts: tuple[Mount, ...]
    namespaces: Mapping[int, str]  # CLONE_NEW* flag: path, or "" for a new one
    masked: tuple[str, ...]
    readonly: tuple[str, ...]
    devices: tuple[Device, ...]
    sysctls: tuple[tuple[str, str], ...]
    seccomp: dict[str, Any] | None
    cgroup: str
    limits: Limits
    personality: int | None


def refuse(what: str, hint: str = "") -> Failure:
    return Failure("Unsupported", f"config: {what} is not supported by this runtime", hint)


def invalid(message: str) -> Failure:
    return Failure("InvalidArgument", f"config: {message}")


def parse(config: Mapping[str, Any]) -> Spec:
    """The typed form of a config. Raises Failure naming the field that is wrong or not supported."""
    try:
        return _spec(config)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise invalid(f"{type(error).__name__}: {error}") from error


def parse_process(process: Mapping[str, Any]) -> Process:
    """The typed form of an OCI `process`, for exec."""
    try:
        return _process(process)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise invalid(f"process: {type(error).__name__}: {error}") from error


def parse_limits(resources: Mapping[str, Any]) -> Limits:
    """The typed form of OCI `linux.resources`, for a container that runs."""
    try:
        return _limits(resources)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise invalid(f"linux.resources: {type(error).__name__}: {error}") from error


def _only(where: str, value: Mapping[str, Any], known: str) -> None:
    """Refuse a field that is set and that nobody here reads."""
    for name in value:
        if name not in known.split() and value[name] not in (None, "", 0, False, [], {}):
            raise refuse(f"{where}{name}")


def _spec(config: Mapping[str, Any]) -> Spec:
    _only("", config, "ociVersion process root hostname domainname mounts linux annotations")
    linux = config.get("linux") or {}
    _only(
        "linux.",
        linux,
        "namespaces devices cgroupsPath resources seccomp sysctl maskedPaths readonlyPaths rootfsPropagation"
        " personality",
    )
    if linux.get("rootfsPropagation", "") not in ("", "private", "rprivate"):
        raise refuse(f"linux.rootfsPropagation {linux['rootfsPropagation']}", "the root of a container is private")
    namespaces: dict[int, str] = {}
    for entry in linux.get("namespaces", ()):
        if entry["type"] not in _NAMESPACES or _NAMESPACES[entry["type"]] in namespaces:
            raise refuse(f"a {entry['type']} namespace")
        namespaces[_NAMESPACES[entry["type"]]] = entry.get("path", "")
    if namespaces.get(sys.CLONE_NEWNS) != "":
        raise refuse("a shared mount namespace", "every container has a mount namespace of its own")
    process = _process(config["process"])
    hostname, domainname = config.get("hostname", ""), config.get("domainname", "")
    if (hostname or domainname) and namespaces.get(sys.CLONE_NEWUTS) != "":
        raise invalid("a host name needs a uts namespace of the container's own")
    return Spec(
        process=process,
        hostname=hostname,
        domainname=domainname,
        readonly_root=bool((config.get("root") or {}).get("readonly")),
        mounts=tuple(_mount(entry) for entry in config.get("mounts", ())),
        namespaces=namespaces,
        masked=tuple(_absolute(path) for path in linux.get("maskedPaths") or ()),
        readonly=tuple(_absolute(path) for path in linux.get("readonlyPaths") or ()),
        devices=tuple(_device(entry) for entry in linux.get("devices") or ()),
        sysctls=tuple(_sysctl(name, value, namespaces) for name, value in (linux.get("sysctl") or {}).items()),
        seccomp=linux.get("seccomp") or _annotated(config.get("annotations") or {}, process),
        cgroup=_cgroup(linux.get("cgroupsPath", "")),
        limits=_limits(linux.get("resources") or {}),
        personality=_personality(linux.get("personality")),
    )


def _annotated(annotations: Mapping[str, str], process: Process) -> dict[str, Any] | None:
    """Spares a start from carrying a profile of 350 names that is always the same."""
    wish = annotations.get(SECCOMP, "")
    if wish not in ("", "default"):
        raise invalid(f"annotation {SECCOMP}: {wish!r} is not a profile of ours")
    if not wish:
        return None
    return default_profile([name for number, name in enumerate(capability.NAMES) if process.bounding >> number & 1])


def _absolute(path: str) -> str:
    if not path.startswith("/") or "\0" in path:
        raise invalid(f"path {path!r} is not absolute")
    return os.path.normpath("/" + path.lstrip("/"))


def _process(process: Mapping[str, Any]) -> Process:
    _only(
        "process.",
        process,
        "terminal consoleSize user args env cwd capabilities rlimits noNewPrivileges oomScoreAdj",
    )
    user = process.get("user") or {}
    _only("process.user.", user, "uid gid additionalGids umask username")
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
        cwd=_absolute(process.get("cwd") or "/"),
        uid=user.get("uid", 0),
        gid=user.get("gid", 0),
        groups=tuple(user.get("additionalGids") or ()),
        umask=user.get("umask", 0o022),
        rlimits=tuple(_rlimit(entry) for entry in process.get("rlimits") or ()),
        no_new_privileges=bool(process.get("noNewPrivileges")),
        oom_score_adj=process.get("oomScoreAdj"),
        **sets,
    )


def _capabilities(names: Iterable[str]) -> int:
    try:
        return capability.mask_of(names)
    except KeyError as error:
        raise invalid(f"unknown capability {error.args[0]}") from error


def _rlimit(entry: Mapping[str, Any]) -> tuple[int, int, int]:
    number = getattr(resource, entry["type"], None) if entry["type"].startswith("RLIMIT_") else None
    if number is None:
        raise invalid(f"unknown limit {entry['type']}")
    return int(number), _unsigned(entry["soft"]), _unsigned(entry["hard"])


def _unsigned(value: int) -> int:
    return value & ((1 << 64) - 1)  # -1 is how some write "unlimited"


def _mount(entry: Mapping[str, Any]) -> Mount:
    _only("mounts[].", entry, "destination type source options")
    destination = _absolute(entry["destination"])
    kind, data = entry.get("type") or "none", []
    set_flags = clear_flags = propagation = 0
    recursive = deep_readonly = deep_propagation = False
    for option in entry.get("options") or ():
        if option in ("bind", "rbind"):
            kind, recursive = "bind", option == "rbind"
        elif option in _FLAGS:
            flag, wanted = _FLAGS[option]
            set_flags, clear_flags = (
                (set_flags | flag, clear_flags & ~flag) if wanted else (set_flags & ~flag, clear_flags | flag)
            )
        elif option == "rro":
            set_flags, deep_readonly = set_flags | sys.MS_RDONLY, True
        elif option.removeprefix("r") in _PROPAGATION:
            propagation, deep_propagation = _PROPAGATION[option.removeprefix("r")], option.startswith("r")
        elif option in ("tmpcopyup", "idmap", "ridmap", "copy-symlink", "remount"):
            raise refuse(f"mount option {option} of {destination}")
        else:
            data.append(option)
    if kind == "bind":
        if data:
            raise invalid(f"mount {destination}: option {data[0]} does not apply to a bind mount")
        if not entry.get("source", "").startswith("/"):
            raise invalid(f"mount {destination}: the source of a bind mount must be an absolute path")
    if destination == "/":
        raise invalid("a mount on / would hide the container's root")
    if (destination == "/proc" and kind != "proc") or (
        destination.startswith("/proc/") and destination not in _PROC_FILES
    ):
        raise invalid(f"mount {destination}: /proc may not be covered")
    return Mount(
        destination,
        kind,
        entry.get("source") or kind,
        set_flags,
        clear_flags,
        ",".join(data),
        recursive,
        deep_readonly,
        propagation,
        deep_propagation,
    )


def _device(entry: Mapping[str, Any]) -> Device:
    kind = _DEVICE_TYPES.get(entry["type"])
    if kind is None:
        raise invalid(f"device {entry['path']}: unknown type {entry['type']}")
    mode = entry.get("fileMode")
    return Device(
        _absolute(entry["path"]),
        kind | (0o666 if mode is None else mode & 0o7777),
        os.makedev(entry.get("major", 0), entry.get("minor", 0)),
        entry.get("uid") or 0,
        entry.get("gid") or 0,
    )


def _sysctl(name: str, value: str, namespaces: Mapping[int, str]) -> tuple[str, str]:
    if name.startswith("net."):
        owned = sys.CLONE_NEWNET in namespaces
    elif name.startswith(_IPC_SYSCTLS):
        owned = sys.CLONE_NEWIPC in namespaces
    else:
        raise invalid(f"sysctl {name} is not kept per container")
    if not owned:
        raise invalid(f"sysctl {name} would change the host's: the container shares that namespace with it")
    if "/.." in name or ".." in name:
        raise invalid(f"sysctl {name}: not a name")
    return name, str(value)


def _cgroup(path: str) -> str:
    if ":" in path:
        raise refuse(f"cgroupsPath {path} in systemd's form", "give a path")
    clean = os.path.normpath("/" + path)
    return clean if path.startswith("/") else clean.lstrip("/")


def _personality(value: Mapping[str, Any] | None) -> int | None:
    if not value:
        return None
    try:
        return {"LINUX": 0, "LINUX32": 8}[value["domain"]]
    except KeyError:
        raise refuse(f"personality {value.get('domain')}") from None


def _limits(resources: Mapping[str, Any]) -> Limits:
    _only("linux.resources.", resources, "devices memory cpu pids blockIO unified")
    memory, cpu = resources.get("memory") or {}, resources.get("cpu") or {}
    io, pids = resources.get("blockIO") or {}, resources.get("pids") or {}
    _only("linux.resources.memory.", memory, "limit swap reservation swappiness disableOOMKiller checkBeforeUpdate")
    _only("linux.resources.cpu.", cpu, "shares quota period cpus mems idle burst")
    for name in ("idle", "burst"):
        if cpu.get(name):
            raise refuse(f"linux.resources.cpu.{name}")
    throttles = {
        "throttleReadBpsDevice": "read_bps",
        "throttleWriteBpsDevice": "write_bps",
        "throttleReadIOPSDevice": "read_iops",
        "throttleWriteIOPSDevice": "write_iops",
    }
    _only("linux.resources.blockIO.", io, " ".join(("weight", *throttles)))
    return Limits(
        memory_bytes=_positive(memory.get("limit")),
        swap_bytes=memory.get("swap"),
        reservation_bytes=_positive(memory.get("reservation")),
        swappiness=memory.get("swappiness"),
        cpu_shares=cpu.get("shares") or 0,
        cpu_quota_us=_positive(cpu.get("quota")),
        cpu_period_us=cpu.get("period") or 0,
        cpus=cpu.get("cpus") or "",
        mems=cpu.get("mems") or "",
        pids=_positive(pids.get("limit")),
        io_weight=io.get("weight") or 0,
        throttles=tuple(
            Throttle(kind, entry["major"], entry["minor"], entry["rate"])
            for field, kind in throttles.items()
            for entry in io.get(field) or ()
        ),
        devices=tuple(
            DeviceRule(
                bool(entry["allow"]),
                entry.get("type") or "a",
                _number(entry.get("major")),
                _number(entry.get("minor")),
                entry.get("access") or "rwm",
            )
            for entry in resources.get("devices") or ()
        ),
        unified=tuple((resources.get("unified") or {}).items()),
        oom_kill_disable=bool(memory.get("disableOOMKiller")),
    )


def _positive(value: int | None) -> int:
    return value if value is not None and value > 0 else 0


def _number(value: int | None) -> int:
    return -1 if value is None else value
