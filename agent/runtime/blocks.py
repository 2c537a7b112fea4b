"""The whole program of a start or an exec: blocks in the order that works (see the comments for why it is this one).

Pure: everything that has to be looked at or opened first comes in as a `Wiring`. Blocks that do not differ between
containers come from caches in `mounts` and `confine`: for each start only what has its paths and descriptors in it is
compiled.
"""

from __future__ import annotations

import errno
import os
import signal
import struct
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from agent.kernel import syscalls as sys
from agent.kernel.program import Block, Fd, Op, Program, Ref
from agent.runtime import confine, console, ids, mounts, root
from agent.runtime.cgroups.group import CgroupMount
from agent.runtime.confine import Bounds
from agent.runtime.console import Console
from agent.runtime.failure import Failure
from agent.runtime.ids import Ids
from agent.runtime.root import Root
from agent.runtime.seccomp import Filter
from agent.runtime.spec.config import Spec
from agent.runtime.spec.mount import Mount
from agent.runtime.spec.process import Process

_IN_CLONE = (
    sys.CLONE_NEWUSER | sys.CLONE_NEWPID | sys.CLONE_NEWNS | sys.CLONE_NEWUTS | sys.CLONE_NEWIPC | sys.CLONE_NEWNET
)
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1


class Wiring(NamedTuple):
    """What the starter opened and found out for one process."""

    bounds: Bounds
    filter: Filter | None
    tasks: tuple[int, ...]  # v1 cgroups to join
    stdio: tuple[int, int, int] | None  # or `console`
    console: Console | None
    joins: tuple[tuple[int, int], ...] = ()  # (descriptor, CLONE_NEW* kinds) of existing namespaces
    keyring: bool = True  # a session keyring of its own
    preserved: int = 0  # descriptors from 3 on that the process is to have
    # The rest is for a start only.
    mount_point: str = ""
    root: Root = Root()
    cgroups: tuple[CgroupMount, ...] = ()
    directories: frozenset[str] = frozenset()  # the bind sources that are directories
    can_mknod: bool = True
    pivot: bool = True
    void: int = -1  # where the mount namespace begins, if not as a copy of ours
    sources: tuple[tuple[str, int], ...] = ()  # detached mounts made beforehand: the destination that each is for
    stops: Stops | None = None
    own: Ids = Ids()  # a user namespace that is entered last of all


class Stops(NamedTuple):
    """Where a child waits for its parent: it writes a word to `channel` and reads one back; at the end, when all is
    made and the command has been found, it waits at `gate` for somebody's byte."""

    channel: int
    gate: int


MAPPED, MOUNTED, READY = b"map the ids", b"run the hooks", b"ready"


def clone_flags(namespaces: Mapping[int, str]) -> int:
    """The namespaces that are new. The cgroup one is made later: in clone it would be rooted at our own group."""
    return sum(kind for kind, path in namespaces.items() if not path and kind & _IN_CLONE)


def void_suffices(spec: Spec, where: Root) -> bool:
    """Whether a container can do without a copy of the host's tree: it has a mount namespace and the host's ids of its
    own, and a root that does not follow the host's."""
    return (
        spec.namespaces.get(sys.CLONE_NEWNS) == ""
        and sys.CLONE_NEWUSER not in spec.namespaces
        and spec.propagation not in (sys.MS_SLAVE, sys.MS_SHARED)
        and root.detachable(where)
    )


def start(spec: Spec, wiring: Wiring) -> Program:
    """The program that turns a fresh child into the container's first process."""
    own_dev = _own_dev(spec)
    if spec.masked and own_dev is None:
        raise Failure(
            "InvalidArgument", "config: maskedPaths need a mount on /dev, or the image chooses what masks them"
        )
    listed = (*mounts.DEVICES, *spec.devices)
    nodes = listed if wiring.can_mknod else ()
    bound = () if wiring.can_mknod else tuple(Mount(device.path, "bind", device.path) for device in listed)
    entries = [*spec.mounts, *bound]
    cgroups = _shown(spec, wiring.cgroups)
    sources = {destination: Fd(fd) for destination, fd in wiring.sources}
    blocks = [*_outside(spec, wiring, entries, cgroups), *_hooked(spec, wiring), _inside(wiring)]
    for mount in entries:
        if (source := sources.get(mount.destination)) is not None:
            is_directory = _dir(mount, wiring)
            blocks.append(Block(mounts.bind(mount.destination, mount.kind, source, is_directory=is_directory)))
        elif mount.kind == "bind" or _early(mount, spec):
            blocks.append(mounts.bound(mount.destination, mount.kind, is_directory=_dir(mount, wiring)))
        else:
            blocks.append(mounts.filesystem(mount, cgroups))
        if mount is own_dev and mount.kind != "bind":
            blocks.append(mounts.devices(nodes))
    if own_dev is None:
        blocks.append(mounts.devices(nodes))
    if spec.masked or spec.readonly:
        blocks.append(mounts.hidden(spec.masked, spec.readonly))
    device = own_dev is not None and own_dev.kind != "bind"
    blocks.append(_streams(spec.process, wiring, first=wiring.own.first, device=device))
    blocks.append(confine.working_directory(spec.process.cwd, make=True))
    if spec.personality is not None:
        blocks.append(Block([Op("set the personality", "personality", (spec.personality,))]))
    if spec.readonly_root:
        blocks.append(root.fixed())
    if spec.propagation:
        blocks.append(root.propagated(spec.propagation, deep=spec.deep_propagation))
    if wiring.stops is not None:
        blocks.append(Block([*confine.found(spec.process), *_gate(wiring.stops)]))
    if wiring.own:
        blocks.append(Block(ids.entered(wiring.own.user)))
    blocks += [_confined(spec.process, wiring), confine.command(spec.process)]
    return Program(tuple(blocks))


def _outside(spec: Spec, wiring: Wiring, entries: list[Mount], cgroups: tuple[CgroupMount, ...]) -> list[Block]:
    """What is done while the host's tree is there: namespaces, settings, the root, the sources of bind mounts."""
    sources = {destination: Fd(fd) for destination, fd in wiring.sources}
    ops = _settings(spec)
    if wiring.own:
        ops += ids.acting(wiring.own)
    for mount in entries:
        if mount.kind == "bind" or mount.destination in sources:
            ops += mounts.cloned(mount, sources.get(mount.destination), wiring.own)
        elif _early(mount, spec):
            ops += mounts.made(mount)
        elif mount.kind == "cgroup":
            ops += [op for entry in cgroups if entry.kind == "bind" for op in mounts.cloned(mounts.shown(mount, entry))]
    if wiring.void >= 0:
        return [*_joined(spec, wiring), Block([*ops, *root.detached(wiring.root)])]
    ops += [root.tree(spec.propagation), *root.mounted(wiring.root, wiring.mount_point, spec.propagation, wiring.own)]
    if sys.CLONE_NEWUSER in spec.namespaces:
        # Not before: the host's directories need not be open to the container's root.
        ops += ids.become_root()
    return [*_joined(spec, wiring), Block(ops)]


def _joined(spec: Spec, wiring: Wiring) -> list[Block]:
    """Its cgroups and namespaces."""
    blocks = [_entered(wiring.tasks)]
    if wiring.stops is not None:
        die = Op("die with the parent", "prctl", (sys.PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
        mapped = _stop(wiring.stops, MAPPED) if sys.CLONE_NEWUSER in spec.namespaces else []
        blocks = [Block([die]), *blocks, Block(mapped)]
    joined = sum(kind for _, kind in wiring.joins)
    made = (kind for kind in (sys.CLONE_NEWCGROUP, sys.CLONE_NEWNET) if spec.namespaces.get(kind) == "")
    return [*blocks, _namespaces(wiring.joins, sum(made) & ~joined)]


@lru_cache(maxsize=64)
def _entered(tasks: tuple[int, ...]) -> Block:
    return Block(confine.entered(tasks))


def _inside(wiring: Wiring) -> Block:
    if wiring.void >= 0:
        return root.raised(wiring.void)
    return root.pivot() if wiring.pivot else root.moved()


def _early(mount: Mount, spec: Spec) -> bool:
    return mount.kind in ("proc", "sysfs") and sys.CLONE_NEWUSER in spec.namespaces


def _dir(mount: Mount, wiring: Wiring) -> bool:
    return mount.kind != "bind" or mount.origin in wiring.directories


def _shown(spec: Spec, cgroups: tuple[CgroupMount, ...]) -> tuple[CgroupMount, ...]:
    """Without a cgroup namespace a v1 hierarchy would show every group of the host: bind the container's own."""
    if sys.CLONE_NEWCGROUP in spec.namespaces:
        return cgroups
    return tuple(entry._replace(kind="bind") if entry.directory else entry for entry in cgroups)


def _stop(stops: Stops, word: bytes) -> list[Op]:
    step = f"wait for the runtime to {word.decode()}"
    return [
        Op(step, "write", (Fd(stops.channel), word, len(word))),
        Op(step, "read", (Fd(stops.channel), bytes(8), 8)),
    ]


def _hooked(spec: Spec, wiring: Wiring) -> list[Block]:
    """A stop while both trees can be seen, if somebody wants it."""
    wanted = {"prestart", "createRuntime", "createContainer"} & set(spec.hooks)
    return [Block(_stop(wiring.stops, MOUNTED))] if wanted and wiring.stops is not None else []


def _gate(stops: Stops) -> list[Op]:
    """All is made: from here on the child needs no parent, only the byte that starts it."""
    return [
        Op("outlive the runtime", "prctl", (sys.PR_SET_PDEATHSIG, 0, 0, 0, 0)),
        Op("report to the runtime", "write", (Fd(stops.channel), READY, len(READY))),
        Op("wait to be started", "read", (Fd(stops.gate), bytes(8), 1)),
    ]


@lru_cache(maxsize=16)  # a health check is the same one again and again, its descriptors too
def execute(process: Process, wiring: Wiring) -> Program:
    """The program of another process in a running container; `wiring.joins` lead into it."""
    return Program(
        (
            _entered(wiring.tasks),
            Block([*_oom_score(process), *_labels(process)]),
            _inner(wiring.joins, wiring.own),
            _streams(process, wiring, device=False),
            confine.working_directory(process.cwd, make=False),
            _confined(process, wiring),
            confine.command(process),
        )
    )


@lru_cache(maxsize=64)
def _inner(joins: tuple[tuple[int, int], ...], own: Ids) -> Block:
    return Block(
        [
            *(Op("enter the container", "setns", (Fd(fd), kinds)) for fd, kinds in joins),
            *(ids.entered(own.user) if own else []),
            Op("clear the umask", "umask", (0,)),
            Op("start a session", "setsid", ()),
        ]
    )


def _confined(process: Process, wiring: Wiring) -> Block:
    return confine.confined(process, wiring.bounds, wiring.filter, keyring=wiring.keyring, preserved=wiring.preserved)


def _own_dev(spec: Spec) -> Mount | None:
    return next((mount for mount in spec.mounts if mount.destination == "/dev"), None)


@lru_cache(maxsize=64)  # descriptors have the same numbers again and again
def _namespaces(joins: tuple[tuple[int, int], ...], made: int) -> Block:
    """Join those that are there; of those that are `made`, what clone leaves to do."""
    ops = [Op("join a namespace", "setns", (Fd(fd), kinds)) for fd, kinds in joins]
    if made & sys.CLONE_NEWCGROUP:
        # After the cgroups are joined: a cgroup namespace is rooted where its maker is.
        ops.append(Op("make a cgroup namespace", "unshare", (sys.CLONE_NEWCGROUP,)))
    ops += [Op("clear the umask", "umask", (0,)), Op("start a session", "setsid", ())]
    if made & sys.CLONE_NEWNET:
        request = struct.pack("<16sH22x", b"lo", _IFF_UP)
        ops += [
            Op("open a socket", "socket", (2, 2 | 0o2000000, 0), label="lo"),
            Op("set lo up", "ioctl", (Ref("lo"), _SIOCSIFFLAGS, request)),
        ]
    return Block(ops)


def _settings(spec: Spec) -> list[Op]:
    """Host name, sysctls and OOM score, through the host's /proc, which no image can have replaced."""
    # In a user namespace that file is not the child's to write: whoever maps its ids does it.
    ops = (
        _labels(spec.process)
        if sys.CLONE_NEWUSER in spec.namespaces
        else [
            *_oom_score(spec.process),
            *_labels(spec.process),
        ]
    )
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


def _labels(process: Process) -> list[Op]:
    """The profiles that the next execve puts on; whether this host has them is checked before (`lsm`)."""
    ops: list[Op] = []
    for path, text in (
        ("/proc/self/attr/apparmor/exec", f"exec {process.apparmor}" if process.apparmor else ""),
        ("/proc/self/attr/exec", process.selinux),
    ):
        if text:
            step, data = f"set the label {text}", text.encode()
            ops += [
                Op(step, "openat", (sys.AT_FDCWD, path.encode(), os.O_WRONLY | os.O_CLOEXEC, 0), label=step),
                Op(step, "write", (Ref(step), data, len(data))),
            ]
    return ops


def _streams(process: Process, wiring: Wiring, *, device: bool, first: int = 0) -> Block:
    if wiring.console is not None:
        return Block(console.ops(wiring.console, first + process.uid, device=device))
    if wiring.stdio is None:
        raise ValueError("a process needs stdio or a console")
    return confine.standard_streams(*wiring.stdio)
