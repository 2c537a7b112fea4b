"""Devices by name, `--device vendor.com/class=name`: what the files of the Container Device Interface say of them.

A vendor's file on the host tells what a container gets with a device: nodes, mounts, variables, groups, hooks
(https://github.com/cncf-tags/container-device-interface, SPEC.md). Files are read at each start of a container that
wants one, so what was plugged in since is there. Devices by their path are `host`'s.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from shoal.errors import StartFailed, Unsupported
from shoal.model.container import DeviceMapping
from shoal.names import is_device_name

Config = dict[str, Any]

FOLDERS = ("/etc/cdi", "/var/run/cdi")  # what is in a later one goes before
_KINDS = {"": "c", "c": "c", "u": "c", "b": "b"}


class _Node(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    path: str
    host_path: str = ""
    type: str = ""
    major: int = 0
    minor: int = 0
    file_mode: int | None = None
    permissions: str = "rwm"
    uid: int | None = None
    gid: int | None = None


class _Mount(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    host_path: str
    container_path: str
    options: list[str] = []
    type: str = ""


class _Hook(msgspec.Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    hook_name: str
    path: str
    args: list[str] = []
    env: list[str] = []
    timeout: int | None = None


class _Edits(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    env: list[str] = []
    device_nodes: list[_Node] = []
    mounts: list[_Mount] = []
    hooks: list[_Hook] = []
    additional_gids: list[int] = []
    intel_rdt: dict[str, Any] = {}
    net_devices: list[dict[str, Any]] = []


class _Device(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    name: str
    container_edits: _Edits
    annotations: dict[str, str] = {}


class _File(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    cdi_version: str
    kind: str
    devices: list[_Device]
    container_edits: _Edits = msgspec.field(default_factory=_Edits)
    annotations: dict[str, str] = {}


class Known(NamedTuple):
    """The host's named devices: each with its file's own edits and its own. `faults` say what could not be read."""

    devices: Mapping[str, tuple[_Edits, _Edits]]
    faults: Sequence[str]


def read(folders: Sequence[str] = FOLDERS) -> Known:
    """What `folders` hold. A file that is wrong, or a device that two files of a folder have, is a fault."""
    devices: dict[str, tuple[_Edits, _Edits]] = {}
    faults: list[str] = []
    for folder in folders:
        here: dict[str, tuple[_Edits, _Edits]] = {}
        double: set[str] = set()
        for path in sorted(each for each in Path(folder).glob("*") if each.suffix in (".json", ".yaml")):
            try:
                file = _parsed(path)
            except (OSError, ValueError) as error:
                faults.append(f"{path}: {error}")
                continue
            for each in file.devices:
                name = f"{file.kind}={each.name}"
                double |= {name} & here.keys()
                here[name] = (file.container_edits, each.container_edits)
        faults += [f"{name} is in several files of {folder}" for name in sorted(double)]
        devices |= here
        for name in double:
            del devices[name]
    return Known(devices, faults)


def edited(config: Config, wanted: Iterable[DeviceMapping], *, known: Known | None = None) -> Config:
    """`config` with what comes with the named devices among `wanted`; hooks only if there are some.

    Raises StartFailed for a name that nothing on this host describes, Unsupported for what its file asks of us.
    """
    names = [each.source for each in wanted if is_device_name(each.source)]
    if not names:
        return config
    known = known or read()
    if missing := [each for each in names if each not in known.devices]:
        raise StartFailed(
            f"CDI device injection failed: unresolvable CDI devices {', '.join(missing)}",
            hint="; ".join(known.faults) or f"no file in {' or '.join(FOLDERS)} describes them",
        )
    edits: list[_Edits] = []
    for name in names:
        for each in known.devices[name]:
            _check(name, each)
            if not any(each is other for other in edits):  # a file's own are made once
                edits.append(each)
    for each in edits:
        config = _with(config, each)
    return config


def _parsed(path: Path) -> _File:
    """Raises OSError, ValueError."""
    text = path.read_bytes()
    decode = msgspec.json.decode if path.suffix == ".json" else msgspec.yaml.decode
    file: _File = decode(text, type=_File)
    if file.cdi_version.split(".")[0] not in ("0", "1"):
        raise ValueError(f"cdiVersion {file.cdi_version} is not known")
    for each in file.devices:
        if not is_device_name(f"{file.kind}={each.name}"):
            raise ValueError(f"{file.kind}={each.name} is no name of a device")
    return file


def _check(name: str, edits: _Edits) -> None:
    for field, value in (("intelRdt", edits.intel_rdt), ("netDevices", edits.net_devices)):
        if value:
            raise Unsupported(f"device {name} comes with {field}, which is not supported yet")


def _with(config: Config, edits: _Edits) -> Config:
    process, linux = config["process"], config["linux"]
    user, resources = process["user"], linux["resources"]
    nodes = [(_node(each, user), each.permissions) for each in edits.device_nodes]
    rules = [
        {"allow": True, **{word: node[word] for word in ("type", "major", "minor")}, "access": access}
        for node, access in nodes
    ]
    named = {each.partition("=")[0] for each in edits.env}
    kept = [each for each in process["env"] if each.partition("=")[0] not in named]
    groups = dict.fromkeys([*user["additionalGids"], *edits.additional_gids])
    return {
        **config,
        "process": {**process, "env": [*kept, *edits.env], "user": {**user, "additionalGids": list(groups)}},
        "mounts": [*config["mounts"], *map(_mount, edits.mounts)],
        "linux": {
            **linux,
            "devices": [*linux["devices"], *(node for node, _ in nodes)],
            "resources": {**resources, "devices": [*resources["devices"], *rules]},
        },
        **_hooked(config, edits),
    }


def _node(node: _Node, user: Mapping[str, int]) -> Config:
    """As on the host, where the file does not say; whose it is, the container's user. Raises StartFailed."""
    kind, major, minor, mode = node.type, node.major, node.minor, node.file_mode
    if not kind or not (major or minor):
        source = node.host_path or node.path
        try:
            about = Path(source).stat()
        except OSError as error:
            raise StartFailed(
                f"CDI device injection failed: {source}: {(error.strerror or str(error)).lower()}"
            ) from error
        if not stat.S_ISCHR(about.st_mode) and not stat.S_ISBLK(about.st_mode):
            raise StartFailed(f"CDI device injection failed: {source} is not a device node")
        kind = "c" if stat.S_ISCHR(about.st_mode) else "b"
        major, minor = os.major(about.st_rdev), os.minor(about.st_rdev)
        mode = about.st_mode & 0o777 if mode is None else mode
    if kind not in _KINDS:
        raise Unsupported(f"device node {node.path} of type {kind} is not supported yet")
    return {
        "path": node.path,
        "type": _KINDS[kind],
        "major": major,
        "minor": minor,
        "fileMode": 0o666 if mode is None else mode,
        "uid": user["uid"] if node.uid is None else node.uid,
        "gid": user["gid"] if node.gid is None else node.gid,
    }


def _mount(mount: _Mount) -> Config:
    bound = [] if mount.type not in ("", "bind") or {"bind", "rbind"} & set(mount.options) else ["rbind"]
    return {
        "destination": mount.container_path,
        "type": mount.type or "bind",
        "source": mount.host_path,
        "options": [*bound, *mount.options],
    }


def _hooked(config: Config, edits: _Edits) -> Config:
    if not edits.hooks:
        return {}
    hooks: dict[str, list[Any]] = {name: list(each) for name, each in config.get("hooks", {}).items()}
    for each in edits.hooks:
        entry = msgspec.to_builtins(each)
        hooks.setdefault(entry.pop("hookName"), []).append(entry)
    return {"hooks": hooks}
