"""What is in a container's root as ops: mounts, devices, masks. `root` is the root itself, `blocks` puts them in order.

The image is hostile. Everything is mounted after pivot_root, by descriptor: a target is resolved with openat2 inside
the container's root, never through a magic link, and then mounted on without looking at its path again, so a link that
is swapped meanwhile changes nothing. Paths that the runtime itself trusts (/proc, /sys, /dev) may hold no link at all.
Sources of bind mounts are cloned (open_tree) before the pivot, in the host's view.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from functools import lru_cache

from agent.kernel import openat2
from agent.kernel import syscalls as sys
from agent.kernel.program import Block, Fd, Op, Ref
from agent.runtime import ids
from agent.runtime.cgroups.group import CgroupMount
from agent.runtime.ids import Ids
from agent.runtime.root import read_only
from agent.runtime.spec.config import Device
from agent.runtime.spec.mount import Mount

_HERE = sys.AT_FDCWD
_HOSTS = Ids()
_TRUSTED = ("proc", "sysfs", "devpts", "mqueue", "cgroup")
# Not IN_ROOT: with AT_FDCWD that would take the working directory for the root. After the pivot / is the container's.
_INSIDE = openat2.NO_MAGICLINKS
_ON_FD = sys.MOVE_MOUNT_F_EMPTY_PATH | sys.MOVE_MOUNT_T_EMPTY_PATH
_CLONE_FD = sys.OPEN_TREE_CLONE | sys.OPEN_TREE_CLOEXEC | sys.AT_EMPTY_PATH
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.EACCES)
_ATTRIBUTES = {
    sys.MS_RDONLY: sys.MOUNT_ATTR_RDONLY,
    sys.MS_NOSUID: sys.MOUNT_ATTR_NOSUID,
    sys.MS_NODEV: sys.MOUNT_ATTR_NODEV,
    sys.MS_NOEXEC: sys.MOUNT_ATTR_NOEXEC,
    sys.MS_NOATIME: sys.MOUNT_ATTR_NOATIME,
    sys.MS_STRICTATIME: sys.MOUNT_ATTR_STRICTATIME,
    sys.MS_NODIRATIME: sys.MOUNT_ATTR_NODIRATIME,
    sys.MS_NOSYMFOLLOW: sys.MOUNT_ATTR_NOSYMFOLLOW,
}
_TIMES = sys.MS_NOATIME | sys.MS_STRICTATIME | sys.MS_RELATIME

DEVICES = tuple(
    Device(f"/dev/{name}", stat.S_IFCHR | 0o666, os.makedev(major, minor))
    for name, major, minor in (
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
    )
)
_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
)


def opened(path: str, label: str, *, resolve: int = _INSIDE, flags: int = 0, step: str = "") -> Op:
    """Open a path as a place only (O_PATH)."""
    return Op(
        step or f"open {path}",
        "openat2",
        (_HERE, os.fsencode(path), openat2.how(os.O_PATH | flags, resolve), openat2.HOW_SIZE),
        label=label,
    )


def directory(path: str, label: str, *, resolve: int = _INSIDE) -> list[Op]:
    """Open a directory, making it and its parents when they are missing."""
    return [*_made(path, resolve=resolve, is_file=False), opened(path, label, resolve=resolve, flags=os.O_DIRECTORY)]


def reached(path: str, *, resolve: int = _INSIDE) -> list[Op]:
    """Make a directory the working directory, making it and its parents when they are missing. Most are there; of the
    others most have their parents."""
    parent, name = os.path.split(path)
    missing = _missing(path, resolve=resolve, is_file=False) if parent != "/" else []
    last = _make(path, Ref(f"above {path}"), os.fsencode(name), is_file=False)
    making = [
        opened(parent, f"above {path}", resolve=resolve, flags=os.O_DIRECTORY)._replace(
            ignore=(errno.ENOENT,) if missing else (), otherwise=1
        ),
        last._replace(then=len(missing), otherwise=len(missing)),
        *missing,
        opened(path, f"made {path}", resolve=resolve, flags=os.O_DIRECTORY),
        Op(f"enter {path}", "fchdir", (Ref(f"made {path}"),)),
    ]
    found = opened(path, f"found {path}", resolve=resolve, flags=os.O_DIRECTORY)
    return [
        found._replace(ignore=(errno.ENOENT,), otherwise=1),
        Op(f"enter {path}", "fchdir", (Ref(f"found {path}"),), then=len(making)),
        *making,
    ]


def _made(path: str, *, resolve: int, is_file: bool) -> list[Op]:
    """Make what is missing of `path`; what is there stays as it is."""
    making = _missing(path, resolve=resolve, is_file=is_file)
    return [opened(path, "", resolve=resolve)._replace(ignore=(errno.ENOENT,), then=len(making)), *making]


def _missing(path: str, *, resolve: int, is_file: bool) -> list[Op]:
    """Make `path` from the top on."""
    parts = [part for part in path.split("/") if part]
    made: list[Op] = []
    for depth, name in enumerate(parts):
        parent, label = "/" + "/".join(parts[:depth]), f"parent {depth} of {path}"
        made.append(opened(parent, label, resolve=resolve, flags=os.O_DIRECTORY))
        last = depth == len(parts) - 1
        made.append(_make(f"{parent.rstrip('/')}/{name}", Ref(label), os.fsencode(name), is_file=is_file and last))
    return made


def _make(path: str, parent: Ref, name: bytes, *, is_file: bool) -> Op:
    """A directory, or an empty file; what is there stays as it is."""
    call, rest = ("mknodat", (stat.S_IFREG | 0o644, 0)) if is_file else ("mkdirat", (0o755,))
    return Op(f"make {path}", call, (parent, name, *rest), ignore=(errno.EEXIST,))


def cloned(mount: Mount, source: Fd | None = None, own: Ids = _HOSTS) -> list[Op]:
    """Before the pivot: clone the source of a bind mount and set its flags while nobody sees it; or take the detached
    mount that somebody with more rights has made (`source`). `own` are the container's ids, where it has some."""
    label, step = f"source of {mount.destination}", f"bind {mount.source} to {mount.destination}"
    flags = sys.OPEN_TREE_CLONE | sys.OPEN_TREE_CLOEXEC | (sys.AT_RECURSIVE if mount.recursive else 0)
    ops = [] if source else _taken(mount, step, label, flags)
    place: Fd | Ref = source or Ref(label)
    if own and mount.id_mapped:
        ops.append(ids.mapped(Ref(label), own, step))
    propagation = mount.propagation or sys.MS_PRIVATE
    deep = mount.deep_propagation or not mount.propagation
    ops.append(_attributes(step, place, 0, 0, propagation, deep=deep))
    for depth, (to_set, to_clear) in enumerate(
        (attributes(mount.set_flags, mount.clear_flags), attributes(mount.deep_set_flags, mount.deep_clear_flags))
    ):
        if to_set or to_clear:
            ops.append(_attributes(step, place, to_set, to_clear, 0, deep=bool(depth)))
    return ops


def _taken(mount: Mount, step: str, label: str, flags: int) -> list[Op]:
    """Clone the source; of a folder beneath it no link leads out, whoever swaps what meanwhile."""
    if not mount.beneath:
        return [Op(step, "open_tree", (_HERE, os.fsencode(mount.source), flags), label=label)]
    top, place = f"top of {mount.destination}", f"place of {mount.destination}"
    step = f"bind {mount.beneath} of {mount.source} to {mount.destination}"
    how = openat2.how(os.O_PATH, openat2.BENEATH | openat2.NO_MAGICLINKS)
    return [
        Op(step, "openat", (_HERE, os.fsencode(mount.source), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, 0), label=top),
        Op(step, "openat2", (Ref(top), os.fsencode(mount.beneath), how, openat2.HOW_SIZE), label=place),
        Op(step, "open_tree", (Ref(place), b"", flags | sys.AT_EMPTY_PATH), label=label),
    ]


def made(mount: Mount) -> list[Op]:
    """Before the pivot: a detached file system. With a user namespace of its own a container gets a proc or sysfs only
    while one can be seen whole that its host has, which is no longer so after the pivot."""
    step, context = f"make {mount.kind} for {mount.destination}", f"{mount.kind} of {mount.destination}"
    label = f"source of {mount.destination}"
    ops = [Op(step, "fsopen", (mount.kind.encode(), sys.FSOPEN_CLOEXEC), label=context)]
    for option in filter(None, mount.data.split(",")):
        key, equals, value = option.partition("=")
        kind = sys.FSCONFIG_SET_STRING if equals else sys.FSCONFIG_SET_FLAG
        ops.append(Op(step, "fsconfig", (Ref(context), kind, key.encode(), value.encode() if equals else 0, 0)))
    return [
        *ops,
        Op(step, "fsconfig", (Ref(context), sys.FSCONFIG_CMD_CREATE, 0, 0, 0)),
        Op(step, "fsmount", (Ref(context), sys.FSMOUNT_CLOEXEC, attributes(mount.set_flags, 0)[0]), label=label),
    ]


def attributes(set_flags: int, clear_flags: int) -> tuple[int, int]:
    """mount(2) flags as mount_setattr(2) has them: to set, to clear."""
    to_set = sum(value for flag, value in _ATTRIBUTES.items() if set_flags & flag)
    to_clear = sum(value for flag, value in _ATTRIBUTES.items() if clear_flags & flag and not flag & _TIMES)
    if set_flags & _TIMES:
        to_clear |= sys.MOUNT_ATTR__ATIME  # the three ways of keeping access times are one field
    return to_set, to_clear


def _attributes(step: str, place: Fd | Ref, to_set: int, to_clear: int, propagation: int, *, deep: bool) -> Op:
    return Op(
        step,
        "mount_setattr",
        (
            place,
            b"",
            sys.AT_EMPTY_PATH | (sys.AT_RECURSIVE if deep else 0),
            struct.pack("<QQQQ", to_set, to_clear, propagation, 0),
            32,
        ),
    )


def bind(destination: str, kind: str, source: Fd | None = None, *, is_directory: bool) -> list[Op]:
    """After the pivot: put the clone on its target, which is made when it is missing."""
    target = f"target of {destination}"
    flags = os.O_DIRECTORY if is_directory else 0
    resolve = _resolve(destination, kind)
    return [
        *_made(destination, resolve=resolve, is_file=not is_directory),
        opened(destination, target, resolve=resolve, flags=flags),
        Op(
            f"mount on {destination}",
            "move_mount",
            (source or Ref(f"source of {destination}"), b"", Ref(target), b"", _ON_FD),
        ),
    ]


@lru_cache(maxsize=256)  # where it comes from differs, where it goes does not
def bound(destination: str, kind: str, *, is_directory: bool) -> Block:
    return Block(bind(destination, kind, is_directory=is_directory))


def _resolve(destination: str, kind: str) -> int:
    trusted = kind in _TRUSTED or destination == "/dev" or destination.startswith("/dev/")
    return _INSIDE | openat2.NO_SYMLINKS if trusted else _INSIDE


@lru_cache(maxsize=256)
def filesystem(mount: Mount, cgroups: tuple[CgroupMount, ...]) -> Block:
    """Mount a file system on its target; `cgroups` says what a mount of type cgroup consists of."""
    if mount.kind == "cgroup":
        return Block(_cgroups(mount, cgroups))
    return Block(_mounted(mount.destination, mount.source, mount.kind, mount.set_flags, mount.data, mount))


def _mounted(path: str, source: str, kind: str, flags: int, data: str, mount: Mount) -> list[Op]:
    step = f"mount {kind} on {path}"
    ops = [
        *reached(path, resolve=_resolve(mount.destination, mount.kind)),
        Op(step, "mount", (os.fsencode(source), b".", kind.encode(), flags, data.encode() if data else 0)),
    ]
    if mount.propagation and mount.propagation != sys.MS_PRIVATE:
        ops += [
            opened(path, f"mount on {path}", resolve=_resolve(mount.destination, mount.kind)),
            _attributes(step, Ref(f"mount on {path}"), 0, 0, mount.propagation, deep=mount.deep_propagation),
        ]
    return ops


def _cgroups(mount: Mount, cgroups: tuple[CgroupMount, ...]) -> list[Op]:
    top = mount.destination
    if len(cgroups) == 1 and not cgroups[0].directory:
        return _mounted(top, "cgroup", cgroups[0].kind, mount.set_flags, cgroups[0].options, mount)
    flags = mount.set_flags & ~sys.MS_RDONLY
    ops = _mounted(top, "tmpfs", "tmpfs", flags, "mode=755", mount)
    for entry in cgroups:
        path = f"{top}/{entry.directory}"
        if entry.kind == "bind":
            ops += bind(path, "bind", is_directory=True)
        else:
            ops += _mounted(path, "cgroup", entry.kind, mount.set_flags, entry.options, mount)
    return [*ops, read_only(top)] if mount.set_flags & sys.MS_RDONLY else ops


def shown(mount: Mount, entry: CgroupMount) -> Mount:
    """The bind mount that shows a group's own directory, where no cgroup namespace hides the host's other groups."""
    return Mount(f"{mount.destination}/{entry.directory}", "bind", entry.path, mount.set_flags)


@lru_cache(maxsize=64)
def devices(nodes: tuple[Device, ...]) -> Block:
    """Device nodes, and the links in /dev that every container has."""
    resolve = _INSIDE | openat2.NO_SYMLINKS
    ops = reached("/dev", resolve=resolve)
    for device in nodes:
        parent, name = os.path.split(device.path)
        place: int | Ref = _HERE
        if parent != "/dev":
            place = Ref(f"parent of {device.path}")
            ops += directory(parent, place.label)
        step = f"make device {device.path}"
        ops.append(Op(step, "mknodat", (place, os.fsencode(name), device.mode, device.number), ignore=(errno.EEXIST,)))
        if device.uid or device.gid:
            ops.append(Op(step, "fchownat", (place, os.fsencode(name), device.uid, device.gid, 0x100)))
    ops += [
        Op(f"link /dev/{name}", "symlinkat", (target.encode(), _HERE, name.encode()), ignore=(errno.EEXIST,))
        for name, target in _LINKS
    ]
    return Block(ops)


@lru_cache(maxsize=64)
def hidden(masked: tuple[str, ...], readonly: tuple[str, ...]) -> Block:
    """Cover masked files with /dev/null (it must be the runtime's own), directories with nothing; pin the read-only."""
    resolve = _INSIDE | openat2.NO_SYMLINKS
    ops: list[Op] = []
    if masked:
        ops.append(opened("/dev/null", "null", resolve=resolve))
    for path in masked:
        step = f"mask {path}"
        ops += [
            opened(path, f"masked {path}", resolve=resolve, step=step)._replace(ignore=_ABSENT, otherwise=4),
            Op(step, "fchdir", (Ref(f"masked {path}"),), ignore=(errno.ENOTDIR,), otherwise=1),
            Op(
                step,
                "mount",
                (
                    b"tmpfs",
                    b".",
                    b"tmpfs",
                    sys.MS_RDONLY | sys.MS_NOSUID | sys.MS_NODEV | sys.MS_NOEXEC,
                    b"size=0k",
                ),
                then=2,
            ),
            Op(step, "open_tree", (Ref("null"), b"", _CLONE_FD), label=f"mask of {path}"),
            Op(step, "move_mount", (Ref(f"mask of {path}"), b"", Ref(f"masked {path}"), b"", _ON_FD)),
        ]
    for path in readonly:
        step, copy = f"make {path} read-only", f"copy of {path}"
        ops += [
            opened(path, f"readonly {path}", resolve=resolve, step=step)._replace(ignore=_ABSENT, otherwise=3),
            Op(step, "open_tree", (Ref(f"readonly {path}"), b"", _CLONE_FD | sys.AT_RECURSIVE), label=copy),
            _attributes(step, Ref(copy), sys.MOUNT_ATTR_RDONLY, 0, 0, deep=True),
            Op(step, "move_mount", (Ref(copy), b"", Ref(f"readonly {path}"), b"", _ON_FD)),
        ]
    return Block(ops)
