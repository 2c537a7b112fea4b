"""A container's own ids: what a start does for a user namespace that exists already, as ops.

The program mounts what the host has, so it keeps the host's rights to the last. But towards file systems it acts as
the container's root (setfsuid(2)): what it makes is the container's, and the overlay, which remembers who mounted it,
finds its ids mapped. Layers, the writable folder and volumes are mounted with mapped ids: on the disk everything
belongs to whom it would without a namespace, so that nothing else need know of one. Last of all it enters the
namespace; it made the others before, so they are the host's, and the container's root has no say over its mounts. The
network is made by whoever made the namespace, in it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple

from agent.kernel import syscalls as sys
from agent.kernel.program import Fd, Op, Ref, Struct
from agent.runtime.spec.config import Spec
from agent.runtime.spec.mount import Mount
from agent.runtime.spec.process import Process

_PR_SET_SECUREBITS, _NO_SETUID_FIXUP = 28, 1 << 2
_OWNED = ("tmpfs", "devpts")  # their owners are options, in the ids of whoever mounts them
_HERE = sys.AT_FDCWD


class Ids(NamedTuple):
    """`user` is a descriptor of the namespace, -1 without one; 0 inside is the host's `first`."""

    user: int = -1
    first: int = 0

    def __bool__(self) -> bool:
        return self.user >= 0


def first_of(spec: Spec) -> int:
    return spec.uids[0].outside if spec.uids else 0


def owner(process: Process, spec: Spec) -> tuple[int, int]:
    """The host's ids of a process of the container."""
    first = first_of(spec)
    return first + process.uid, first + process.gid


def outside(spec: Spec) -> Spec:
    """`spec` as what is done before the namespace is entered: with the host's ids where the kernel is given some."""
    first = first_of(spec)
    if not first:
        return spec
    return spec._replace(
        namespaces={kind: path for kind, path in spec.namespaces.items() if kind != sys.CLONE_NEWUSER},
        mounts=tuple(_owned(mount, first) for mount in spec.mounts),
        devices=tuple(each._replace(uid=first + each.uid, gid=first + each.gid) for each in spec.devices),
    )


def _owned(mount: Mount, first: int) -> Mount:
    if mount.kind not in _OWNED:
        return mount
    words = [each.partition("=") for each in mount.data.split(",")]
    return mount._replace(
        data=",".join(
            f"{key}={first + int(value)}" if key in ("uid", "gid") and value.isdecimal() else f"{key}{equals}{value}"
            for key, equals, value in words
        )
    )


def acting(ids: Ids) -> list[Op]:
    """From here on files are looked at and made as the container's root, with all rights kept."""
    return [
        Op("keep the rights over files", "prctl", (_PR_SET_SECUREBITS, _NO_SETUID_FIXUP, 0, 0, 0)),
        Op("act as the container's root group", "setfsgid", (ids.first,)),
        Op("act as the container's root", "setfsuid", (ids.first,)),
    ]


def entered(user: int) -> list[Op]:
    """Entering gives all rights inside, and none outside."""
    return [Op("enter the user namespace", "setns", (Fd(user), sys.CLONE_NEWUSER)), *become_root()]


def become_root() -> list[Op]:
    return [
        Op("become the namespace's root group", "setresgid", (0, 0, 0)),
        Op("become the namespace's root", "setresuid", (0, 0, 0)),
    ]


def mapped(tree: Ref, ids: Ids, step: str) -> Op:
    """Show a detached mount with the container's ids (mount_setattr(2), "ID-mapped mounts")."""
    attributes = Struct((sys.MOUNT_ATTR_IDMAP, 0, 0, Fd(ids.user)))
    return Op(f"map ids: {step}", "mount_setattr", (tree, b"", sys.AT_EMPTY_PATH, attributes, 32))


def placed(paths: Iterable[tuple[str, str]], ids: Ids, mount_point: str) -> list[Op]:
    """Mount each path with mapped ids under a name in `mount_point`, which becomes the working directory and whose own
    content is hidden. No more of it is left when the container's root has become /."""
    step, where = "make room for the layers", os.fsencode(mount_point)
    ops = [
        Op(step, "mount", (b"tmpfs", where, b"tmpfs", sys.MS_NOSUID | sys.MS_NODEV, b"size=64k,mode=700")),
        Op(step, "chdir", (where,)),
    ]
    for path, name in paths:
        label, step = f"mapped {name}", f"mount {path} for the container's root"
        ops += [
            Op(step, "open_tree", (_HERE, os.fsencode(path), sys.OPEN_TREE_CLONE | sys.OPEN_TREE_CLOEXEC), label=label),
            mapped(Ref(label), ids, step),
            Op(step, "mkdirat", (_HERE, name.encode(), 0o700)),
            Op(step, "move_mount", (Ref(label), b"", _HERE, name.encode(), sys.MOVE_MOUNT_F_EMPTY_PATH)),
        ]
    return ops
