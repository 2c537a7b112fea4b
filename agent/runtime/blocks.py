"""The whole program of a start or an exec: blocks in the order that works (see the comments for why it is this one).

Pure: everything that has to be looked at or opened first comes in as a `Wiring`. Blocks that do not differ between
containers come from caches in `mounts` and `confine`; only the first and the last block are compiled for each start.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Mapping
from typing import NamedTuple

from agent.kernel import syscalls as sys
from agent.kernel.program import Block, Fd, Op, Program, Ref
from agent.runtime import confine, console, mounts
from agent.runtime.cgroups.group import CgroupMount
from agent.runtime.confine import Bounds
from agent.runtime.console import Console
from agent.runtime.failure import Failure
from agent.runtime.mounts import Root
from agent.runtime.seccomp import Filter
from agent.runtime.spec import Mount, Process, Spec

_IN_CLONE = sys.CLONE_NEWPID | sys.CLONE_NEWNS | sys.CLONE_NEWUTS | sys.CLONE_NEWIPC | sys.CLONE_NEWNET
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1


class Wiring(NamedTuple):
    """What the starter opened and found out for one process."""

    bounds: Bounds
    filter: Filter | None
    tasks: tuple[int, ...]  # v1 cgroups to join
    stdio: tuple[int, int, int] | None  # or `console`
    console: Console | None
    joins: tuple[tuple[int, int], ...] = ()  # (descriptor, CLONE_NEW* kinds) of existing namespaces
    # The rest is for a start only.
    mount_point: str = ""
    root: Root = Root()
    cgroups: tuple[CgroupMount, ...] = ()
    directories: frozenset[str] = frozenset()  # the bind sources that are directories
    can_mknod: bool = True


def clone_flags(namespaces: Mapping[int, str]) -> int:
    """The namespaces that are new. The cgroup one is made later: in clone it would be rooted at our own group."""
    return sum(kind for kind, path in namespaces.items() if not path and kind & _IN_CLONE)


def start(spec: Spec, wiring: Wiring) -> Program:
    """The program that turns a fresh child into the container's first process."""
    own_dev = _own_dev(spec)
    if spec.masked and own_dev is None:
        raise Failure(
            "InvalidArgument", "config: maskedPaths need a mount on /dev, or the image chooses what masks them"
        )
    listed = [] if wiring.can_mknod else [*mounts.DEVICES, *spec.devices]
    bound = [Mount(device.path, "bind", device.path) for device in listed]
    entries = [*spec.mounts, *bound]
    before = [
        *confine.entered(wiring.tasks),
        *_namespaces(spec, wiring),
        *_settings(spec),
        *(op for mount in entries if mount.kind == "bind" for op in mounts.cloned(mount)),
        Op("make the mount tree private", "mount", (0, b"/", 0, sys.MS_REC | sys.MS_PRIVATE, 0)),
        *mounts.root(wiring.root, wiring.mount_point),
    ]
    blocks = [Block(before), mounts.pivot()]
    for mount in entries:
        if mount.kind == "bind":
            is_directory = mount.source in wiring.directories
            blocks.append(Block(mounts.bind(mount, is_directory=is_directory)))
        else:
            blocks.append(mounts.filesystem(mount, wiring.cgroups))
        if mount.destination == "/dev" and mount.kind != "bind" and wiring.can_mknod:
            blocks.append(mounts.devices(spec.devices))
    if own_dev is None and wiring.can_mknod:
        blocks.append(mounts.devices(spec.devices))
    if spec.masked or spec.readonly:
        blocks.append(mounts.hidden(spec.masked, spec.readonly))
    after = _streams(spec.process, wiring, device=own_dev is not None and own_dev.kind != "bind" and wiring.can_mknod)
    after += confine.working_directory(spec.process, make=True)
    if spec.personality is not None:
        after.append(Op("set the personality", "personality", (spec.personality,)))
    blocks.append(Block(after))
    if spec.readonly_root:
        blocks.append(mounts.readonly_root())
    blocks += [confine.confined(spec.process, wiring.bounds, wiring.filter), Block(confine.command(spec.process))]
    return Program(tuple(blocks))


def execute(process: Process, wiring: Wiring) -> Program:
    """The program of another process in a running container; `wiring.joins` lead into it."""
    before = [
        *confine.entered(wiring.tasks),
        *_oom_score(process),
        *(Op("enter the container", "setns", (Fd(fd), kinds)) for fd, kinds in wiring.joins),
        Op("clear the umask", "umask", (0,)),
        Op("start a session", "setsid", ()),
        *_streams(process, wiring, device=False),
        *confine.working_directory(process, make=False),
    ]
    return Program(
        (
            Block(before),
            confine.confined(process, wiring.bounds, wiring.filter),
            Block(confine.command(process)),
        )
    )


def _own_dev(spec: Spec) -> Mount | None:
    return next((mount for mount in spec.mounts if mount.destination == "/dev"), None)


def _namespaces(spec: Spec, wiring: Wiring) -> list[Op]:
    ops = [Op("join a namespace", "setns", (Fd(fd), kinds)) for fd, kinds in wiring.joins]
    if spec.namespaces.get(sys.CLONE_NEWCGROUP) == "":
        # After the cgroups are joined: a cgroup namespace is rooted where its maker is.
        ops.append(Op("make a cgroup namespace", "unshare", (sys.CLONE_NEWCGROUP,)))
    ops += [Op("clear the umask", "umask", (0,)), Op("start a session", "setsid", ())]
    if spec.namespaces.get(sys.CLONE_NEWNET) == "":
        request = struct.pack("<16sH22x", b"lo", _IFF_UP)
        ops += [
            Op("open a socket", "socket", (2, 2 | 0o2000000, 0), label="lo"),
            Op("set lo up", "ioctl", (Ref("lo"), _SIOCSIFFLAGS, request)),
        ]
    return ops


def _settings(spec: Spec) -> list[Op]:
    """Host name, sysctls and OOM score, through the host's /proc, which no image can have replaced."""
    ops = _oom_score(spec.process)
    for name, value in spec.sysctls:
        step, path = f"set sysctl {name}", "/proc/sys/" + name.replace(".", "/")
        data = value.encode()
        ops += [
            Op(step, "openat", (sys.AT_FDCWD, path.encode(), os.O_WRONLY | os.O_CLOEXEC, 0), label=step),
            Op(step, "write", (Ref(step), data, len(data))),
        ]
    for call, text in (("sethostname", spec.hostname), ("setdomainname", spec.domainname)):
        if text:
            ops.append(Op(f"set the host name {text}", call, (text.encode(), len(text.encode()))))
    return ops


def _oom_score(process: Process) -> list[Op]:
    if process.oom_score_adj is None:
        return []
    data = str(process.oom_score_adj).encode()
    step = f"set the OOM score to {process.oom_score_adj}"
    return [
        Op(step, "openat", (sys.AT_FDCWD, b"/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC, 0), label="oom"),
        # Below our own score it takes CAP_SYS_RESOURCE: give what this host can give.
        Op(step, "write", (Ref("oom"), data, len(data)), ignore=(errno.EACCES,)),
    ]


def _streams(process: Process, wiring: Wiring, *, device: bool) -> list[Op]:
    if wiring.console is not None:
        return console.ops(wiring.console, process.uid, device=device)
    if wiring.stdio is None:
        raise ValueError("a process needs stdio or a console")
    return confine.standard_streams(*wiring.stdio)
