"""Filesystem: what a volume with mount options is (docker's `-o type=nfs -o device=:/share -o o=addr=10.0.0.5,ro`).

`mount_of` reads the options and is pure; `mount` and `unmount` do it, block, and are idempotent. mount.nfs(8) and its
like are not asked: the kernel gets the options as they are, but for a server's name, which it cannot look up.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Mapping
from pathlib import Path

import msgspec

from agent.kernel import syscalls as sys
from shoal.errors import Conflict, InvalidArgument, SourceNotFound

_OPTIONS = ("device", "o", "type")
# Words of mount(8) that are flags of mount(2): what each sets, and what it clears.
_FLAGS = {
    "ro": (sys.MS_RDONLY, 0),
    "rw": (0, sys.MS_RDONLY),
    "nosuid": (sys.MS_NOSUID, 0),
    "suid": (0, sys.MS_NOSUID),
    "nodev": (sys.MS_NODEV, 0),
    "dev": (0, sys.MS_NODEV),
    "noexec": (sys.MS_NOEXEC, 0),
    "exec": (0, sys.MS_NOEXEC),
    "sync": (sys.MS_SYNCHRONOUS, 0),
    "async": (0, sys.MS_SYNCHRONOUS),
    "noatime": (sys.MS_NOATIME, 0),
    "nodiratime": (sys.MS_NODIRATIME, 0),
    "relatime": (sys.MS_RELATIME, 0),
    "strictatime": (sys.MS_STRICTATIME, 0),
    "defaults": (0, 0),
}
_BOUND = frozenset({"bind", "rbind"})


class Filesystem(msgspec.Struct, frozen=True):
    """`data` is what the filesystem itself reads."""

    kind: str
    device: str
    flags: int = 0
    data: str = ""


def check_options(options: Mapping[str, str]) -> None:
    """Raises InvalidArgument for what is no option, or not enough of them."""
    for name in options:
        if name not in _OPTIONS:
            raise InvalidArgument(f'invalid option: "{name}"', hint=f"there are: {', '.join(_OPTIONS)}")
    if any("\0" in value for value in options.values()):
        raise InvalidArgument("a volume option contains a NUL byte")
    if not options:
        return
    if not options.get("device"):
        raise InvalidArgument("missing device in volume options", hint="give -o device=…")
    if _is_bound(options):
        if not options["device"].startswith("/"):
            raise InvalidArgument(f"missing device in volume options: {options['device']!r} is no absolute path")
    elif not options.get("type"):
        raise InvalidArgument("missing type in volume options", hint="give -o type=nfs, or -o o=bind for a folder")


def folder_of(options: Mapping[str, str]) -> str:
    """The host's folder that stands in a volume's place; empty where none does."""
    return options.get("device", "") if options and _is_bound(options) else ""


def mount_of(options: Mapping[str, str]) -> Filesystem | None:
    """What is to be mounted at a volume's place; None where its data is a folder."""
    if not options or _is_bound(options):
        return None
    flags, data = 0, []
    for word in filter(None, options.get("o", "").split(",")):
        if word in _FLAGS:
            given, cleared = _FLAGS[word]
            flags = (flags | given) & ~cleared
        else:
            data.append(word)
    return Filesystem(options["type"], options["device"], flags, ",".join(data))


def mount(filesystem: Filesystem, place: Path) -> None:
    """Raises SourceNotFound and Conflict in docker's words."""
    if place.is_mount():
        return
    try:
        data = _by_address(filesystem)
        words = (filesystem.device, str(place), filesystem.kind)
        source, target, kind = (os.fsencode(each) for each in words)
        sys.call("mount", source, target, kind, filesystem.flags, data.encode() if data else None)
    except OSError as error:
        failure = SourceNotFound if error.errno == errno.ENOENT else Conflict
        raise failure(
            f"failed to mount local volume: mount {filesystem.device}:{place}, data: {filesystem.data}: "
            f"{os.strerror(error.errno or 0).lower()}",
            hint="see whether this host has what the volume's options name",
        ) from error


def unmount(place: Path) -> None:
    """Everything at `place`, also what was mounted twice."""
    while True:
        try:
            sys.call("umount2", os.fsencode(place), sys.MNT_DETACH)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):  # nothing is mounted there
                return
            raise


def _is_bound(options: Mapping[str, str]) -> bool:
    return bool(_BOUND.intersection(options.get("o", "").split(","))) and options.get("type", "none") in (
        "", "none", "bind",
    )  # fmt: skip


def _by_address(filesystem: Filesystem) -> str:
    """Its data, with an address in the place of a server's name. Raises OSError for one that is unknown."""
    if not filesystem.kind.startswith("nfs"):
        return filesystem.data
    words = [each.partition("=") for each in filesystem.data.split(",")]
    return ",".join(
        f"{key}={socket.gethostbyname(value)}" if key == "addr" else f"{key}{equals}{value}"
        for key, equals, value in words
    )
