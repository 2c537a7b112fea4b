"""The whole of an OCI configuration: `Spec`, and `parse`, which refuses what is wrong or not supported by its name."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from typing import Any, NamedTuple

from agent.kernel import syscalls as sys
from agent.runtime import capability
from agent.runtime.cgroups.base import Limits
from agent.runtime.profile import default_profile
from agent.runtime.spec.mount import PROPAGATION, IdMapping, Mount, parse_mappings, parse_mount
from agent.runtime.spec.process import Process, parse_process
from agent.runtime.spec.refusal import absolute, checked, invalid, only, refuse
from agent.runtime.spec.resources import parse_limits

SECCOMP = "shoal.seccomp"  # annotation: "default" asks for docker's default profile

NAMESPACES = {
    "pid": sys.CLONE_NEWPID,
    "mount": sys.CLONE_NEWNS,
    "uts": sys.CLONE_NEWUTS,
    "ipc": sys.CLONE_NEWIPC,
    "network": sys.CLONE_NEWNET,
    "cgroup": sys.CLONE_NEWCGROUP,
    "user": sys.CLONE_NEWUSER,
    "time": sys.CLONE_NEWTIME,
}
_IPC_SYSCTLS = ("kernel.msg", "kernel.sem", "kernel.shm", "fs.mqueue.")
_DEVICE_TYPES = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}
HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


class Device(NamedTuple):
    path: str
    mode: int  # type and permissions, as mknod(2)
    number: int
    uid: int = 0
    gid: int = 0


class Hook(NamedTuple):
    path: str
    args: tuple[str, ...]
    env: tuple[str, ...]
    timeout_s: int  # 0: none


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
    propagation: int = 0  # of the container's root; 0 for the default, private
    deep_propagation: bool = False
    uids: tuple[IdMapping, ...] = ()
    gids: tuple[IdMapping, ...] = ()
    time_offsets: tuple[tuple[str, int, int], ...] = ()  # clock, seconds, nanoseconds
    hooks: Mapping[str, tuple[Hook, ...]] = {}


def parse(config: Mapping[str, Any]) -> Spec:
    """The typed form of a config. Raises Failure naming the field that is wrong or not supported."""
    return checked("", _spec, config)


def unattended(spec: Spec) -> Spec:
    """The same, for a start in which nobody can take a step while the process waits. Raises Failure for the rest."""
    if spec.namespaces.get(sys.CLONE_NEWUSER) == "":
        raise refuse("a new user namespace", "one that exists can be joined by its path")
    if sys.CLONE_NEWTIME in spec.namespaces:
        raise refuse("a time namespace")
    if spec.namespaces[sys.CLONE_NEWNS]:
        raise refuse("a shared mount namespace", "every container has a mount namespace of its own")
    if spec.hooks:
        raise refuse("hooks")
    for mount in spec.mounts:
        if mount.uids or (mount.id_mapped and sys.CLONE_NEWUSER not in spec.namespaces):
            raise refuse(f"mount {mount.destination}: an id map of its own")
        if mount.copy_up:
            raise refuse(f"mount {mount.destination}: tmpcopyup")
    return spec


def _spec(config: Mapping[str, Any]) -> Spec:
    only("", config, "ociVersion process root hostname domainname mounts linux annotations hooks")
    linux = config.get("linux") or {}
    only(
        "linux.",
        linux,
        "namespaces devices cgroupsPath resources seccomp sysctl maskedPaths readonlyPaths rootfsPropagation"
        " personality uidMappings gidMappings timeOffsets",
    )
    namespaces = _namespaces(linux)
    process = parse_process(config["process"])
    hostname, domainname = config.get("hostname", ""), config.get("domainname", "")
    if (hostname or domainname) and namespaces.get(sys.CLONE_NEWUTS) != "":
        raise invalid("a host name needs a uts namespace of the container's own")
    propagation = linux.get("rootfsPropagation") or "private"
    if propagation.removeprefix("r") not in PROPAGATION:
        raise invalid(f"linux.rootfsPropagation: {propagation!r}")
    return Spec(
        process=process,
        hostname=hostname,
        domainname=domainname,
        readonly_root=bool((config.get("root") or {}).get("readonly")),
        mounts=tuple(parse_mount(entry) for entry in config.get("mounts") or ()),
        namespaces=namespaces,
        masked=tuple(absolute(path) for path in linux.get("maskedPaths") or ()),
        readonly=tuple(absolute(path) for path in linux.get("readonlyPaths") or ()),
        devices=tuple(_device(entry) for entry in linux.get("devices") or ()),
        sysctls=tuple(_sysctl(name, value, namespaces) for name, value in (linux.get("sysctl") or {}).items()),
        seccomp=linux.get("seccomp") or _annotated(config.get("annotations") or {}, process),
        cgroup=_cgroup(linux.get("cgroupsPath") or ""),
        limits=parse_limits(linux.get("resources") or {}),
        personality=_personality(linux.get("personality")),
        propagation=0 if propagation.endswith("private") else PROPAGATION[propagation.removeprefix("r")],
        deep_propagation=propagation.startswith("r"),
        uids=parse_mappings(linux.get("uidMappings")),
        gids=parse_mappings(linux.get("gidMappings")),
        time_offsets=tuple(
            (clock, offset.get("secs", 0), offset.get("nanosecs", 0))
            for clock, offset in (linux.get("timeOffsets") or {}).items()
        ),
        hooks=_hooks(config.get("hooks") or {}),
    )


def _namespaces(linux: Mapping[str, Any]) -> dict[int, str]:
    found: dict[int, str] = {}
    for entry in linux.get("namespaces") or ():
        if entry["type"] not in NAMESPACES or NAMESPACES[entry["type"]] in found:
            raise refuse(f"a {entry['type']} namespace")
        path = entry.get("path") or ""
        found[NAMESPACES[entry["type"]]] = absolute(path) if path else ""
    if sys.CLONE_NEWNS not in found:
        raise refuse("a shared mount namespace", "every container has a mount namespace of its own")
    mapped = bool(linux.get("uidMappings")) and bool(linux.get("gidMappings"))
    if found.get(sys.CLONE_NEWUSER) == "" and not mapped:
        raise invalid("a new user namespace needs uidMappings and gidMappings")
    if sys.CLONE_NEWUSER not in found and (linux.get("uidMappings") or linux.get("gidMappings")):
        raise invalid("uidMappings and gidMappings need a user namespace")
    if found.get(sys.CLONE_NEWTIME) != "" and linux.get("timeOffsets"):
        raise invalid("timeOffsets need a time namespace of the container's own")
    return found


def _hooks(entries: Mapping[str, Any]) -> dict[str, tuple[Hook, ...]]:
    only("hooks.", entries, " ".join(HOOKS))
    return {name: tuple(_hook(name, hook) for hook in entries[name]) for name in HOOKS if entries.get(name)}


def _hook(name: str, entry: Mapping[str, Any]) -> Hook:
    only(f"hooks.{name}[].", entry, "path args env timeout")
    timeout = entry.get("timeout")
    if timeout is not None and timeout <= 0:
        raise invalid(f"hooks.{name}: a timeout of {timeout} s")
    path = absolute(entry["path"])
    return Hook(path, tuple(entry.get("args") or (path,)), tuple(entry.get("env") or ()), timeout or 0)


def _annotated(annotations: Mapping[str, str], process: Process) -> dict[str, Any] | None:
    """Spares a start from carrying a profile of 350 names that is always the same."""
    wish = annotations.get(SECCOMP, "")
    if wish not in ("", "default"):
        raise invalid(f"annotation {SECCOMP}: {wish!r} is not a profile of ours")
    if not wish:
        return None
    return default_profile([name for number, name in enumerate(capability.NAMES) if process.bounding >> number & 1])


def _device(entry: Mapping[str, Any]) -> Device:
    kind = _DEVICE_TYPES.get(entry["type"])
    if kind is None:
        raise invalid(f"device {entry['path']}: unknown type {entry['type']}")
    mode = entry.get("fileMode")
    return Device(
        absolute(entry["path"]),
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
    elif name == "kernel.domainname":
        owned = sys.CLONE_NEWUTS in namespaces
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
        only("linux.personality.", value, "domain")
        return {"LINUX": 0, "LINUX32": 8}[value["domain"]]
    except KeyError:
        raise refuse(f"personality {value.get('domain')}") from None
