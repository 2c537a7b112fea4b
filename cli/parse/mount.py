"""What is mounted: `-v src:dst:opts`, `--mount type=…,…`, `--tmpfs path:opts`."""

from __future__ import annotations

import csv
import os
import re

from cli.parse.size import size
from shoal.errors import InvalidArgument, Unsupported
from shoal.v1.types_pb2 import MOUNT_TYPE_BIND, MOUNT_TYPE_TMPFS, MOUNT_TYPE_VOLUME, Mount

_PROPAGATION = frozenset({"private", "rprivate", "shared", "rshared", "slave", "rslave"})
# How strictly both sides must agree at any moment; on Linux they always do, so each of these holds.
_CONSISTENCY = frozenset({"consistent", "cached", "delegated", "default"})
_RECURSIONS = {"enabled": "", "disabled": "disabled", "writable": "writable", "readonly": "readonly"}
_BARE = frozenset({"readonly", "ro", "volume-nocopy", "bind-nonrecursive"})
_VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*", re.ASCII)
_TYPES = {"bind": MOUNT_TYPE_BIND, "volume": MOUNT_TYPE_VOLUME, "tmpfs": MOUNT_TYPE_TMPFS}


def volume(text: str) -> Mount:
    """`-v`: a host path (made when it is missing), a volume's name, or only the path inside (anonymous)."""
    parts = text.split(":")
    if len(parts) > 3 or not all(parts):
        raise InvalidArgument(
            f"invalid spec: {text}: empty section between colons"
            if "" in parts
            else f"invalid volume specification: '{text}'"
        )
    if len(parts) == 1:
        return Mount(type=MOUNT_TYPE_VOLUME, target=_target(parts[0], text))
    source = _absolute(parts[0])
    mount = Mount(source=source, target=_target(parts[1], text))
    if source.startswith("/"):
        mount.type, mount.create_source = MOUNT_TYPE_BIND, True
    else:
        mount.type = MOUNT_TYPE_VOLUME
        _check_name(source)
    for option in parts[2].split(",") if len(parts) == 3 else []:
        _option(mount, option)
    return mount


def mount(text: str) -> Mount:
    """`--mount`: `key=value`, comma-separated, quoted as CSV. A missing bind source is refused by the agent."""
    try:
        fields = next(csv.reader([text], strict=True))
    except (csv.Error, StopIteration) as error:
        raise InvalidArgument(f"invalid mount '{text}': {error}") from error
    out = Mount(type=MOUNT_TYPE_VOLUME, spelled_out=True)
    given = []
    for field in fields:
        key, equals, value = field.partition("=")
        key = key.lower()
        if not equals and key not in _BARE:
            raise InvalidArgument(f"invalid field '{field}' must be a key=value pair")
        _mount_field(out, key, value if equals else "true", field)
        given.append(key)
    _check_mount(out, given, text)
    return out


def driver(text: str) -> str:
    """Of volumes: there is one."""
    if text not in ("", "local"):
        raise Unsupported(f"volume driver {text} is not supported yet", hint="use local")
    return text


def tmpfs(text: str) -> Mount:
    """`--tmpfs`: a path and options of its own."""
    path, _, options = text.partition(":")
    out = Mount(type=MOUNT_TYPE_TMPFS, target=_target(path, text))
    for option in options.split(",") if options else []:
        key, _, value = option.partition("=")
        if key == "size" and not value.endswith("%"):
            out.tmpfs_size_bytes = size(value)
        elif key == "mode":
            out.tmpfs_mode = _octal(value)
        elif option == "ro":
            out.read_only = True
        elif option:
            out.tmpfs_options.append(option)
    return out


def _mount_field(out: Mount, key: str, value: str, field: str) -> None:
    if key == "type":
        if value.lower() not in _TYPES:
            raise Unsupported(f"mount type {value} is not supported yet", hint="use bind, volume or tmpfs")
        out.type = _TYPES[value.lower()]
    elif key in ("source", "src"):
        out.source = _absolute(value)
    elif key in ("target", "dst", "destination"):
        out.target = value
    elif key in ("readonly", "ro"):
        out.read_only = _boolean(key, value)
    elif key == "bind-propagation":
        if value.lower() not in _PROPAGATION:
            raise InvalidArgument(f"invalid propagation mode: {value}")
        out.propagation = value.lower()
    elif key == "bind-nonrecursive":
        out.recursion = "disabled" if _boolean(key, value) else ""
    elif key == "bind-recursive":
        if value.lower() not in _RECURSIONS:
            raise InvalidArgument(
                f'invalid value for bind-recursive: {value} (must be "enabled", "disabled", "writable", or "readonly")'
            )
        out.recursion = _RECURSIONS[value.lower()]
    elif key == "volume-subpath":
        out.subpath = value
    elif key == "volume-nocopy":
        out.no_copy = _boolean(key, value)
    elif key == "volume-driver":
        driver(value)
    elif key == "volume-label":
        name, _, text = value.partition("=")
        out.volume_labels[name] = text
    elif key == "volume-opt":
        name, equals, text = value.partition("=")
        if not equals:
            raise InvalidArgument(f"invalid volume-opt '{value}'", hint="it looks like volume-opt=type=nfs")
        out.volume_options[name] = text
    elif key == "tmpfs-size":
        out.tmpfs_size_bytes = size(value)
    elif key == "tmpfs-mode":
        out.tmpfs_mode = _octal(value)
    elif key == "consistency" and value.lower() in _CONSISTENCY:
        return
    elif key.startswith(("bind-", "volume-", "image-")):
        raise Unsupported(f"mount option {key} is not supported yet")
    else:
        raise InvalidArgument(f"unexpected key '{key}' in '{field}'")


def _check_mount(out: Mount, given: list[str], text: str) -> None:
    if not out.target:
        raise InvalidArgument(f"invalid mount '{text}': target is required")
    _target(out.target, text)
    name = next(each for each, kind in _TYPES.items() if kind == out.type)
    for key in given:
        family = key.partition("-")[0]
        if family in _TYPES and family != name:
            raise InvalidArgument(f"cannot mix '{family}-*' options with mount type '{name}'")
    if name == "bind":
        if not out.source:
            raise InvalidArgument(f"invalid mount '{text}': source is required for a bind mount")
        if not out.source.startswith("/"):
            raise InvalidArgument(f"invalid mount path: '{out.source}' mount path must be absolute")
    elif name == "volume" and out.source:
        _check_name(out.source)
    elif name == "tmpfs" and out.source:
        raise InvalidArgument(f"invalid mount '{text}': a tmpfs has no source")


def _option(mount: Mount, option: str) -> None:
    """One of the words after the second colon of `-v`."""
    bind = mount.type == MOUNT_TYPE_BIND
    if option == "ro":
        mount.read_only = True
    elif option == "nocopy" and not bind:
        mount.no_copy = True
    elif option in _PROPAGATION and bind:
        mount.propagation = option
    elif option in ("z", "Z"):
        mount.relabel = option
    elif option != "rw" and option not in _CONSISTENCY:
        raise InvalidArgument(f"invalid mode: {option}")


def _absolute(source: str) -> str:
    """A path that begins with a dot, from here; anything else as it is."""
    return os.path.abspath(source) if source in (".", "..") or source.startswith(("./", "../")) else source  # noqa: PTH100


def _target(path: str, text: str) -> str:
    if not path.startswith("/"):
        raise InvalidArgument(
            f"invalid volume specification: '{text}': invalid mount path: '{path}' mount path must be absolute"
        )
    clean = os.path.normpath(path)
    if clean in ("/", "//"):
        raise InvalidArgument(f"invalid volume specification: '{text}': destination can't be '/'")
    return clean


def _check_name(name: str) -> None:
    if not _VOLUME_NAME.fullmatch(name):
        raise InvalidArgument(
            f'"{name}" includes invalid characters for a local volume name, '
            'only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed',
            hint="to mount a host directory, give its absolute path",
        )


def _boolean(key: str, value: str) -> bool:
    if value.lower() in ("true", "1", "t"):
        return True
    if value.lower() in ("false", "0", "f"):
        return False
    raise InvalidArgument(f"invalid value for {key}: {value}")


def _octal(value: str) -> int:
    try:
        return int(value, 8)
    except ValueError as error:
        raise InvalidArgument(f"invalid mode: {value}", hint="it looks like 1777") from error
