"""A container's root as ops: mounted where only its mount namespace sees it, made /, and finished last of all.

Either it is detached, and comes to lie over an empty tree (`void`), or it is mounted somewhere in a copy of the host's.
`mounts` fills it meanwhile. An overlay's layers come from the agent; a bundle has one directory.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from agent.kernel import syscalls as sys
from agent.kernel.program import Block, Fd, Op, Ref
from agent.runtime import ids
from agent.runtime.failure import Failure
from agent.runtime.ids import Ids

_HERE = sys.AT_FDCWD
_HOSTS = Ids()
_PAGE = 4095  # mount(2) takes one page of options
_STRING = 255  # fsconfig(2) takes so much in one
_DETACHED = "the container's root"


class Root(NamedTuple):
    """What becomes / : layers under a writable directory, or one directory (`path`)."""

    lower: tuple[str, ...] = ()
    upper: str = ""
    work: str = ""
    volatile: bool = False
    path: str = ""


def tree(propagation: int) -> Op:
    """Cut the copy of the host's mount tree off from the original: what is mounted in it stays in it.

    A root that is to follow the host's (slave, shared) has to descend from a tree that does.
    """
    kind = sys.MS_SLAVE if propagation in (sys.MS_SLAVE, sys.MS_SHARED) else sys.MS_PRIVATE
    return Op("make the mount tree private", "mount", (0, b"/", 0, sys.MS_REC | kind, 0))


def mounted(where: Root, mount_point: str, propagation: int = 0, own: Ids = _HOSTS) -> list[Op]:
    """Mount the container's root on `mount_point` and make that the working directory; with `own` ids, where it has
    some."""
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
            ops.append(read_only(mount_point))
        return ops + here
    if not where.lower:
        raise Failure("InvalidArgument", "rootfs: no layers and no path")
    if own:
        return [*_with_ids(where, mount_point, own), *here]
    options = _overlay_options(where, where.lower)
    if len(options) > _PAGE and len(where.lower) > 1:
        common = os.path.commonpath(where.lower)
        relative = _overlay_options(where, tuple(os.path.relpath(layer, common) for layer in where.lower))
        here.insert(0, Op("enter the layers' directory", "chdir", (os.fsencode(common),)))
        if len(relative) > _PAGE:
            attach = (Ref(_DETACHED), b"", _HERE, os.fsencode(mount_point), sys.MOVE_MOUNT_F_EMPTY_PATH)
            return [*_layered(where), Op("mount the container's root", "move_mount", attach), *here[1:]]
        return [here[0], _overlay(mount_point, relative), here[1]]
    return [_overlay(mount_point, options), *here]


def detachable(where: Root) -> bool:
    """Whether `detached` can have its paths: fsconfig(2) takes short ones, and unescapes some of them."""
    paths = (*where.lower, where.upper, where.work)
    return bool(where.path) or all(len(os.fsencode(path)) <= _STRING and "\\" not in path for path in paths)


def detached(where: Root) -> list[Op]:
    """Make the container's root, mounted nowhere; `raised` does the rest."""
    if where.path or (not where.upper and len(where.lower) == 1):
        step = "mount the container's root"
        source = os.fsencode(where.path or where.lower[0])
        flags = sys.OPEN_TREE_CLONE | sys.OPEN_TREE_CLOEXEC | sys.AT_RECURSIVE
        private, fixed = (0, 0, sys.MS_PRIVATE, 0), (sys.MOUNT_ATTR_RDONLY, 0, 0, 0)
        ops = [
            Op(step, "open_tree", (_HERE, source, flags), label=_DETACHED),
            _changed(step, Ref(_DETACHED), sys.AT_RECURSIVE, private),
        ]
        return ops if where.path else [*ops, _changed(step, Ref(_DETACHED), 0, fixed)]
    if not where.lower:
        raise Failure("InvalidArgument", "rootfs: no layers and no path")
    return _layered(where)


@lru_cache(maxsize=1)
def raised(void: int) -> Block:
    """Leave the host's tree for a copy of the `void`, and make the detached root / over it."""
    over = (Ref(_DETACHED), b"", _HERE, b"/", sys.MOVE_MOUNT_F_EMPTY_PATH)
    return Block(
        (
            Op("leave the host's tree", "setns", (Fd(void), sys.CLONE_NEWNS)),
            Op("make a mount namespace", "unshare", (sys.CLONE_NEWNS,)),
            Op("mount the container's root", "move_mount", over),
            Op("enter the container's root", "fchdir", (Ref(_DETACHED),)),
            *_rooted(),
        )
    )


def _rooted() -> list[Op]:
    """Make the working directory, a mount that lies over /, the root."""
    return [Op("enter the container's root", "chroot", (b".",)), Op("enter /", "chdir", (b"/",))]


def _changed(step: str, place: Ref, flags: int, attributes: tuple[int, int, int, int]) -> Op:
    """mount_setattr(2): to set, to clear, propagation, a user namespace."""
    return Op(step, "mount_setattr", (place, b"", sys.AT_EMPTY_PATH | flags, struct.pack("<QQQQ", *attributes), 32))


def _with_ids(where: Root, mount_point: str, own: Ids) -> list[Op]:
    """Upper and work folder have to be below one mount: that of the folder that both are in."""
    above, _, upper = where.upper.rpartition("/")
    beside, _, work = where.work.rpartition("/")
    if not above or beside != above:
        raise Failure("InvalidArgument", "rootfs: mapped ids need upper and work in one folder")
    names = [str(number) for number in range(len(where.lower))]
    inside = where._replace(upper=f"own/{upper}", work=f"own/{work}")
    return [
        *ids.placed([*zip(where.lower, names, strict=True), (above, "own")], own, mount_point),
        _overlay(mount_point, _overlay_options(inside, names)),
    ]


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


def _layered(where: Root) -> list[Op]:
    """An overlay that is mounted nowhere, one call per layer (Linux 6.7): there may be more than fit in a page."""
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
        Op(step, "fsmount", (Ref("overlay"), sys.FSMOUNT_CLOEXEC, 0), label=_DETACHED),
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
            *_rooted(),
        )
    )


def read_only(path: str) -> Op:
    """Forbid writing through the mount at `path`."""
    return Op(
        f"make {path} read-only",
        "mount_setattr",
        (_HERE, os.fsencode(path), 0, struct.pack("<QQQQ", sys.MOUNT_ATTR_RDONLY, 0, 0, 0), 32),
    )


@lru_cache(maxsize=1)
def fixed() -> Block:
    return Block((read_only("/"),))


@lru_cache(maxsize=8)
def propagated(propagation: int, *, deep: bool) -> Block:
    """How the finished root takes part in what is mounted later, there and on the host."""
    return Block(
        (Op("set the root's propagation", "mount", (0, b"/", 0, propagation | (sys.MS_REC if deep else 0), 0)),)
    )
