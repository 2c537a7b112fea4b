"""Flags of instructions as values: `--from`, `--chown`, `--mount` and their like. Pure.

What docker's builder knows and we do not do is refused by name; so is what nobody knows.
"""

from __future__ import annotations

import csv
import posixpath
from collections.abc import Callable, Mapping
from enum import Enum
from typing import TypeVar

import msgspec

from agent.build.parser import Instruction
from shoal.errors import InvalidArgument, Unsupported

# A flag that may come several times, one with a value, one without.
_MANY, _VALUE, _BOOL = "many", "value", "bool"
_KNOWN: dict[str, dict[str, str]] = {
    "FROM": {"platform": _VALUE},
    "RUN": {"mount": _MANY, "network": _VALUE, "security": _VALUE, "device": _MANY},
    "COPY": {"from": _VALUE, "chown": _VALUE, "chmod": _VALUE, "link": _BOOL, "parents": _BOOL, "exclude": _MANY},
    "ADD": {
        "chown": _VALUE,
        "chmod": _VALUE,
        "link": _BOOL,
        "exclude": _MANY,
        "checksum": _VALUE,
        "keep-git-dir": _BOOL,
        "unpack": _BOOL,
    },
    # They are part of the check itself: `agent.image.change` reads them.
    "HEALTHCHECK": {
        "interval": _VALUE,
        "timeout": _VALUE,
        "start-period": _VALUE,
        "start-interval": _VALUE,
        "retries": _VALUE,
    },
}
_TRUE, _FALSE = ("", "true", "1"), ("false", "0")
Expand = Callable[[str], str]
E = TypeVar("E", bound=Enum)


class Network(Enum):
    DEFAULT = "default"
    NONE = "none"
    HOST = "host"


class MountKind(Enum):
    BIND = "bind"
    CACHE = "cache"
    TMPFS = "tmpfs"
    SECRET = "secret"
    SSH = "ssh"


class Sharing(Enum):
    SHARED = "shared"
    PRIVATE = "private"
    LOCKED = "locked"


class Mount(msgspec.Struct, frozen=True):
    """`--mount` of RUN. `origin` is `from`: a stage or an image, empty for the context. `env`: a secret's variable."""

    kind: MountKind = MountKind.BIND
    target: str = ""
    source: str = ""
    origin: str = ""
    id: str = ""
    read_only: bool = False
    sharing: Sharing = Sharing.SHARED
    required: bool = False
    mode: int | None = None
    uid: int = 0
    gid: int = 0
    size_bytes: int = 0
    env: str = ""


class RunFlags(msgspec.Struct, frozen=True):
    mounts: tuple[Mount, ...] = ()
    network: Network | None = None


class CopyFlags(msgspec.Struct, frozen=True):
    """Of COPY and ADD. `unpack` is None where nobody said: then ADD unpacks what is local."""

    origin: str = ""
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()
    checksum: str = ""
    keep_git_dir: bool = False
    unpack: bool | None = None


def check(found: Instruction) -> None:
    """Raises InvalidArgument for a flag that the instruction does not have."""
    _sorted(found)


def platform_of(found: Instruction, expand: Expand) -> str:
    return expand(_one(_sorted(found), "platform"))


def run_flags(found: Instruction, expand: Expand) -> RunFlags:
    """Raises Unsupported for what cannot be had here."""
    given = _sorted(found)
    security = _one(given, "security")
    if security not in ("", "sandbox"):
        raise Unsupported(f"RUN --security={security} is not supported", hint="without it the step runs confined")
    if "device" in given:
        raise Unsupported("RUN --device is not supported", hint="a build has no devices of the host")
    network = _one(given, "network")
    if network and network not in {each.value for each in Network}:
        raise InvalidArgument(f"invalid network mode {network!r} of RUN", hint="use default, none or host")
    mounts = tuple(mount(each, expand) for each in given.get("mount", ()))
    return RunFlags(mounts, Network(network) if network else None)


def copy_flags(found: Instruction, expand: Expand) -> CopyFlags:
    given = _sorted(found)
    if "$" in _one(given, "from"):
        raise InvalidArgument(
            "variable expansion is not supported for --from",
            hint="define a stage with FROM and an ARG before the first FROM instead",
        )
    return CopyFlags(
        origin=_one(given, "from"),
        chown=expand(_one(given, "chown")),
        chmod=expand(_one(given, "chmod")),
        link=_truth(given, "link") or False,
        parents=_truth(given, "parents") or False,
        exclude=tuple(expand(each) for each in given.get("exclude", ())),
        checksum=expand(_one(given, "checksum")),
        keep_git_dir=_truth(given, "keep-git-dir") or False,
        unpack=_truth(given, "unpack"),
    )


def origins(found: Instruction) -> list[str]:
    """The stages or images that an instruction takes something from."""
    given = _sorted(found)
    if found.keyword == "COPY":
        return [each for each in given.get("from", ()) if each]
    if found.keyword == "RUN":
        return [each.origin for each in (mount(text, str) for text in given.get("mount", ())) if each.origin]
    return []


def mount(text: str, expand: Expand) -> Mount:
    """`type=cache,target=/x,…`. Raises InvalidArgument in docker's words."""
    fields: dict[str, str] = {}
    for field in next(csv.reader([text]), []):
        name, equals, value = field.partition("=")
        key = _ALIASES.get(name.lower(), name.lower())
        if key not in _MOUNT_KEYS:
            raise InvalidArgument(f"unexpected key {name!r} in {field!r} of --mount")
        fields[key] = ("true" if not equals else value) if key in ("ro", "rw", "required") else value
    kind = _enum(MountKind, fields.pop("type", "bind"), "mount type")
    if strange := fields.keys() - _ALLOWED[kind]:
        raise InvalidArgument(f"unexpected key {min(strange)!r} for mount type {kind.value!r}")
    fields = {key: value if key == "from" else expand(value) for key, value in fields.items()}
    _check_mount(kind, fields, text)
    return Mount(
        kind=kind,
        target=fields.get("target", ""),
        source=fields.get("source", ""),
        origin=fields.get("from", ""),
        id=fields.get("id", ""),
        read_only=_read_only(kind, fields),
        sharing=_enum(Sharing, fields.get("sharing", "shared"), "sharing"),
        required=_is_true("required", fields.get("required", "false")),
        mode=_number(fields, "mode", 8),
        uid=_number(fields, "uid", 10) or 0,
        gid=_number(fields, "gid", 10) or 0,
        size_bytes=_size(fields.get("size", "0")),
        env=fields.get("env", ""),
    )


_ALIASES = {"dst": "target", "destination": "target", "src": "source", "readonly": "ro", "readwrite": "rw"}
_MOUNT_KEYS = frozenset("type target source from id ro rw sharing required mode uid gid size env".split())
_ALLOWED = {
    MountKind.BIND: frozenset("target source from ro rw".split()),
    MountKind.CACHE: frozenset("target source from id ro rw sharing mode uid gid".split()),
    MountKind.TMPFS: frozenset("target size".split()),
    MountKind.SECRET: frozenset("target id source required mode uid gid env".split()),
    MountKind.SSH: frozenset("target id required mode uid gid".split()),
}
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30}


def _check_mount(kind: MountKind, fields: Mapping[str, str], text: str) -> None:
    needs_target = kind in (MountKind.BIND, MountKind.CACHE, MountKind.TMPFS)
    if needs_target and posixpath.normpath("/" + fields.get("target", "")) in ("/", "//"):
        raise InvalidArgument(f"a mount of type {kind.value} needs a target that is not /: {text[:200]!r}")
    if kind == MountKind.SECRET and not any(fields.get(each) for each in ("id", "source", "target")):
        raise InvalidArgument("a mount of type secret needs an id or a target")


def _read_only(kind: MountKind, fields: Mapping[str, str]) -> bool:
    """What a bind shows is written to only where it was asked for, a cache unless it was not."""
    if "rw" in fields:
        return not _is_true("rw", fields["rw"])
    return _is_true("ro", fields["ro"]) if "ro" in fields else kind == MountKind.BIND


def _sorted(found: Instruction) -> dict[str, list[str]]:
    known = _KNOWN.get(found.keyword, {})
    given: dict[str, list[str]] = {}
    for each in found.flags:
        name, equals, value = each[2:].partition("=")
        kind = known.get(name)
        if kind is None:
            raise InvalidArgument(f"unknown flag: --{name[:100]} of {found.keyword}")
        if kind != _BOOL and not equals:
            raise InvalidArgument(f"missing a value on flag: --{name}")
        if kind != _MANY and name in given:
            raise InvalidArgument(f"duplicate flag specified: --{name}")
        given.setdefault(name, []).append(value)
    return given


def _one(given: Mapping[str, list[str]], name: str) -> str:
    return given.get(name, [""])[0]


def _truth(given: Mapping[str, list[str]], name: str) -> bool | None:
    return _is_true(name, given[name][0]) if name in given else None


def _is_true(name: str, value: str) -> bool:
    if value.lower() in _TRUE:
        return True
    if value.lower() in _FALSE:
        return False
    raise InvalidArgument(f"{name} is true or false, not {value!r}")


def _number(fields: Mapping[str, str], name: str, base: int) -> int | None:
    if name not in fields:
        return None
    try:
        return int(fields[name], base)
    except ValueError as error:
        raise InvalidArgument(f"invalid value {fields[name]!r} for {name} of --mount") from error


def _size(text: str) -> int:
    digits = text.rstrip("bBkKmMgG")
    if not digits.isdecimal() or text[len(digits) :].lower() not in _UNITS:
        raise InvalidArgument(f"invalid size {text!r} of --mount")
    return int(digits) * _UNITS[text[len(digits) :].lower()]


def _enum(kind: type[E], value: str, what: str) -> E:
    try:
        return kind(value.lower())
    except ValueError as error:
        known = ", ".join(each.value for each in kind)
        raise InvalidArgument(f"unknown {what} {value!r}", hint=f"use one of {known}") from error
