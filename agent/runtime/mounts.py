"""A container's file system as ops: root, mounts, devices, masks. `blocks` puts them in order.

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
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from agent.kernel import openat2
from agent.kernel import syscalls as sys
from agent.kernel.program import Block, Fd, Op, Ref
from agent.runtime.cgroups.group import CgroupMount
from agent.runtime.failure import Failure
from agent.runtime.spec.config import Device
from agent.runtime.spec.mount import Mount

_HERE = sys.AT_FDCWD
_TRUSTED = ("proc", "sysfs", "devpts", "mqueue", "cgroup")
# Not IN_ROOT: with AT_FDCWD that would take the working directory for the root. After the pivot / is the container's.
_INSIDE = openat2.NO_MAGICLINKS
_ON_FD = sys.MOVE_MOUNT_F_EMPTY_PATH | sys.MOVE_MOUNT_T_EMPTY_PATH
_CLONE_FD = sys.OPEN_TREE_CLONE | sys.OPEN_TREE_CLOEXEC | sys.AT_EMPTY_PATH
_PAGE = 4095  # mount(2) takes one page of options
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


class Root(NamedTuple):
    """What becomes / : layers under a writable directory, or one directory (`path`)."""

    lower: tuple[str, ...] = ()
    upper: str = ""
    work: str = ""
    volatile: bool = False
    path: str = ""


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


def _made(path: str, *, resolve: int, is_file: bool) -> list[Op]:
    """Make what is missing of `path`; what is there stays as it is."""
    parts = [part for part in path.split("/") if part]
    made: list[Op] = []
    for depth, name in enumerate(parts):
        parent, label = "/" + "/".join(parts[:depth]), f"parent {depth} of {path}"
        made.append(opened(parent, label, resolve=resolve, flags=os.O_DIRECTORY))
        arguments: tuple[str, tuple[int, ...]] = ("mkdirat", (0o755,))
        if is_file and depth == len(parts) - 1:
            arguments = ("mknodat", (stat.S_IFREG | 0o644, 0))
        made.append(
            Op(
                f"make {parent.rstrip('/')}/{name}",
                arguments[0],
                (Ref(label), os.fsencode(name), *arguments[1]),
                ignore=(errno.EEXIST,),
            )
        )
    probe = opened(path, "", resolve=resolve)
    return [probe._replace(ignore=(errno.ENOENT,), then=len(made)), *made]


def tree(propagation: int) -> Op:
    """Cut the copy of the host's mount tree off from the original: what is mounted in it stays in it.

    A root that is to follow the host's (slave, shared) has to descend from a tree that does.
    """
    kind = sys.MS_SLAVE if propagation in (sys.MS_SLAVE, sys.MS_SHARED) else sys.MS_PRIVATE
    return Op("make the mount tree private", "mount", (0, b"/", 0, sys.MS_REC | kind, 0))


def root(where: Root, mount_point: str, propagation: int = 0) -> list[Op]:
    """Mount the container's root on `mount_point` and make that the working directory."""
    step = "mount the container's root"
    here = [Op("enter the container's root", "chdir", (os.fsencode(mount_point),))]
    if where.path or (not where.upper and len(where.lower) == 1):
        source = os.fsencode(where.path or where.lower[0])
        ops = [
            Op(step, "mount", (source, os.fsencode(mount_point), 0, sys.MS_BIND | sys.MS_REC, 0)),
        ]
        if propagation not in (sys.MS_SLAVE, sys.MS_SHARED):
            ops.append(Op(step, "mount", (0, os.fsencode(mount_point), 0, sys.MS_PRIVATE | sys.MS_REC, 0)))
        if not where.path:
            ops.append(_readonly(mount_point))
        return ops + here
    if not where.lower:
        raise Failure("InvalidArgument", "rootfs: no layers and no path")
    options = _overlay_options(where, where.lower)
    if len(options) > _PAGE and len(where.lower) > 1:
        common = os.path.commonpath(where.lower)
        relative = _overlay_options(where, tuple(os.path.relpath(layer, common) for layer in where.lower))
        here.insert(0, Op("enter the layers' directory", "chdir", (os.fsencode(common),)))
        if len(relative) > _PAGE:
            return _long_overlay(where, mount_point) + here[1:]
        return [here[0], _overlay(mount_point, relative), here[1]]
    return [_overlay(mount_point, options), *here]


def _overlay(mount_point: str, options: bytes) -> Op:
    return Op("mount the container's root", "mount", (b"overlay", os.fsencode(mount_point), b"overlay", 0, options))


def _overlay_options(where: Root, lower: Iterable[str]) -> bytes:
    def escaped(path: str, extra: str) -> str:
        return "".join("\\" + letter if letter in "\\," + extra else letter for letter in path)

    options = "lowerdir=" + ":".join(escaped(layer, ":") for layer in lower)
    if where.upper:
        options += f",upperdir={escaped(where.upper, '')},workdir={escaped(where.work, '')}"
        if where.volatile:
            options += ",volatile"
    return os.fsencode(options)


def _long_overlay(where: Root, mount_point: str) -> list[Op]:
    """More layers than fit in a page: one call per layer (Linux 6.7)."""
    step, kind = "mount the container's root", sys.FSCONFIG_SET_STRING
    settings = [("lowerdir+", layer) for layer in where.lower]
    if where.upper:
        settings += [("upperdir", where.upper), ("workdir", where.work)]
    return [
        Op(step, "fsopen", (b"overlay", sys.FSOPEN_CLOEXEC), label="overlay"),
        *(
            Op(f"add layer {path}", "fsconfig", (Ref("overlay"), kind, key.encode(), os.fsencode(path), 0))
            for key, path in settings
        ),
        *([Op(step, "fsconfig", (Ref("overlay"), sys.FSCONFIG_SET_FLAG, b"volatile", 0, 0))] if where.volatile else []),
        Op(step, "fsconfig", (Ref("overlay"), sys.FSCONFIG_CMD_CREATE, 0, 0, 0)),
        Op(step, "fsmount", (Ref("overlay"), sys.FSMOUNT_CLOEXEC, 0), label="overlay mount"),
        Op(
            step,
            "move_mount",
            (Ref("overlay mount"), b"", _HERE, os.fsencode(mount_point), sys.MOVE_MOUNT_F_EMPTY_PATH),
        ),
    ]


@lru_cache(maxsize=1)
def pivot() -> Block:
    """Make the working directory / and forget the host's tree."""
    return Block(
        (
            Op("pivot into the container's root", "pivot_root", (b".", b".")),
            Op("detach the host's tree", "umount2", (b".", sys.MNT_DETACH)),
            Op("enter /", "chdir", (b"/",)),
        )
    )


@lru_cache(maxsize=1)
def moved() -> Block:
    """As `pivot`, for a host whose own root cannot be pivoted away from (a ramdisk): its tree stays, out of reach."""
    return Block(
        (
            Op("move the container's root to /", "mount", (b".", b"/", 0, sys.MS_MOVE, 0)),
            Op("enter the container's root", "chroot", (b".",)),
            Op("enter /", "chdir", (b"/",)),
        )
    )


def cloned(mount: Mount, source: Fd | None = None) -> list[Op]:
    """Before the pivot: clone the source of a bind mount and set its flags while nobody sees it; or take the detached
    mount that somebody with more rights has made (`source`)."""
    label, step = f"source of {mount.destination}", f"bind {mount.source} to {mount.destination}"
    flags = sys.OPEN_TREE_CLONE | sys.OPEN_TREE_CLOEXEC | (sys.AT_RECURSIVE if mount.recursive else 0)
    ops = [] if source else [Op(step, "open_tree", (_HERE, os.fsencode(mount.source), flags), label=label)]
    place: Fd | Ref = source or Ref(label)
    propagation = mount.propagation or sys.MS_PRIVATE
    deep = mount.deep_propagation or not mount.propagation
    ops.append(_attributes(step, place, 0, 0, propagation, deep=deep))
    for depth, (to_set, to_clear) in enumerate(
        (attributes(mount.set_flags, mount.clear_flags), attributes(mount.deep_set_flags, mount.deep_clear_flags))
    ):
        if to_set or to_clear:
            ops.append(_attributes(step, place, to_set, to_clear, 0, deep=bool(depth)))
    return ops


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


def bind(mount: Mount, source: Fd | None = None, *, is_directory: bool) -> list[Op]:
    """After the pivot: put the clone on its target, which is made when it is missing."""
    target = f"target of {mount.destination}"
    flags = os.O_DIRECTORY if is_directory else 0
    resolve = _resolve(mount)
    return [
        *_made(mount.destination, resolve=resolve, is_file=not is_directory),
        opened(mount.destination, target, resolve=resolve, flags=flags),
        Op(
            f"bind {mount.source} to {mount.destination}",
            "move_mount",
            (source or Ref(f"source of {mount.destination}"), b"", Ref(target), b"", _ON_FD),
        ),
    ]


def _resolve(mount: Mount) -> int:
    trusted = mount.kind in _TRUSTED or mount.destination == "/dev" or mount.destination.startswith("/dev/")
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
        *directory(path, f"target of {path}", resolve=_resolve(mount)),
        Op(step, "fchdir", (Ref(f"target of {path}"),)),
        Op(step, "mount", (os.fsencode(source), b".", kind.encode(), flags, data.encode() if data else 0)),
    ]
    if mount.propagation and mount.propagation != sys.MS_PRIVATE:
        ops += [
            opened(path, f"mount on {path}", resolve=_resolve(mount)),
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
            ops += bind(shown(mount, entry), is_directory=True)
        else:
            ops += _mounted(path, "cgroup", entry.kind, mount.set_flags, entry.options, mount)
    return [*ops, _readonly(top)] if mount.set_flags & sys.MS_RDONLY else ops


def shown(mount: Mount, entry: CgroupMount) -> Mount:
    """The bind mount that shows a group's own directory, where no cgroup namespace hides the host's other groups."""
    return Mount(f"{mount.destination}/{entry.directory}", "bind", entry.path, mount.set_flags)


def _readonly(path: str) -> Op:
    return Op(
        f"make {path} read-only",
        "mount_setattr",
        (_HERE, os.fsencode(path), 0, struct.pack("<QQQQ", sys.MOUNT_ATTR_RDONLY, 0, 0, 0), 32),
    )


@lru_cache(maxsize=1)
def readonly_root() -> Block:
    return Block((_readonly("/"),))


@lru_cache(maxsize=8)
def root_propagation(propagation: int, *, deep: bool) -> Block:
    """How the finished root takes part in what is mounted later, there and on the host."""
    return Block(
        (Op("set the root's propagation", "mount", (0, b"/", 0, propagation | (sys.MS_REC if deep else 0), 0)),)
    )


@lru_cache(maxsize=64)
def devices(nodes: tuple[Device, ...]) -> Block:
    """Device nodes, and the links in /dev that every container has."""
    resolve = _INSIDE | openat2.NO_SYMLINKS
    ops = directory("/dev", "dev", resolve=resolve)
    for device in nodes:
        parent, name = os.path.split(device.path)
        label = "dev"
        if parent != "/dev":
            label = f"parent of {device.path}"
            ops += directory(parent, label)
        step = f"make device {device.path}"
        ops.append(
            Op(step, "mknodat", (Ref(label), os.fsencode(name), device.mode, device.number), ignore=(errno.EEXIST,))
        )
        if device.uid or device.gid:
            ops.append(Op(step, "fchownat", (Ref(label), os.fsencode(name), device.uid, device.gid, 0x100)))
    ops += [
        Op(f"link /dev/{name}", "symlinkat", (target.encode(), Ref("dev"), name.encode()), ignore=(errno.EEXIST,))
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
            opened(path, f"masked {path}/", resolve=resolve, flags=os.O_DIRECTORY, step=step)._replace(
                ignore=_ABSENT, otherwise=2
            ),
            Op(step, "fchdir", (Ref(f"masked {path}/"),)),
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
                then=3,
            ),
            opened(path, f"masked {path}", resolve=resolve, step=step)._replace(ignore=_ABSENT, otherwise=2),
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
