"""The end of every program, for start and exec alike: limits, identity, capabilities, seccomp, the command itself.

Order matters: the bounding set shrinks while CAP_SETPCAP is there; ids change with KEEPCAPS so that a user other than
root can be given capabilities; a filter without no_new_privs needs CAP_SYS_ADMIN to the last, so the final capset
follows it. Nothing but capset and execve runs under the filter.
"""

from __future__ import annotations

import errno
import os
import resource
import struct
from functools import lru_cache
from typing import NamedTuple

from agent.kernel import syscalls as sys
from agent.kernel.program import Block, Fd, Op, Ref, Struct, Vector
from agent.runtime import capability
from agent.runtime.mounts import opened, reached
from agent.runtime.seccomp import Filter
from agent.runtime.spec.process import Process

_CAPABILITY_VERSION_3 = 0x20080522
_TRY_NEXT = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ELOOP, errno.ENAMETOOLONG)
_UNLIMITED = (1 << 64) - 1
_SCHED_ATTR_BYTES, _IOPRIO_WHO_PROCESS = 48, 1


class Bounds(NamedTuple):
    """What this host can give: nobody gets more than the keeper has."""

    permitted: int
    hard_limits: tuple[tuple[int, int], ...]  # resource number, hard limit (unlimited as 2**64 - 1)
    default_limits: tuple[tuple[int, int, int], ...]  # for resources that a config does not name


@lru_cache(maxsize=64)
def working_directory(cwd: str, *, make: bool) -> Block:
    """Go to the process's cwd as root; a magic link out of the container is refused."""
    if make:
        return Block(reached(cwd))
    step = f"enter the working directory {cwd}"
    return Block([opened(cwd, "cwd", flags=os.O_DIRECTORY, step=step), Op(step, "fchdir", (Ref("cwd"),))])


def confined(
    process: Process, bounds: Bounds, filter_: Filter | None, *, keyring: bool = True, preserved: int = 0
) -> Block:
    """Limits, ids, capabilities and seccomp."""
    return _confined(process._replace(args=(), env=(), cwd=""), bounds, filter_, keyring, preserved)


@lru_cache(maxsize=128)
def _confined(
    process: Process,
    bounds: Bounds,
    filter_: Filter | None,
    keyring: bool,
    preserved: int,
) -> Block:
    ops = _scheduled(process)
    ops += [
        Op(f"set {limit_name(number)} to {soft}:{hard}", "prlimit64", (0, number, struct.pack("<QQ", soft, hard), 0))
        for number, soft, hard in limits(process.rlimits, bounds)
    ]
    bounding = process.bounding & bounds.permitted
    if keyring:
        ops.append(
            Op(
                "make a session keyring",
                "keyctl",
                (sys.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0),
                ignore=(errno.ENOSYS, errno.EPERM, errno.EACCES),
            )
        )
    ops += [
        Op(f"drop {name}", "prctl", (sys.PR_CAPBSET_DROP, number, 0, 0, 0), ignore=(errno.EINVAL, errno.EPERM))
        for number, name in enumerate(capability.NAMES)
        if not bounding >> number & 1
    ]
    groups = struct.pack(f"<{len(process.groups)}I", *process.groups)
    ops += [
        Op("keep capabilities over the change of user", "prctl", (sys.PR_SET_KEEPCAPS, 1, 0, 0, 0)),
        Op("set the additional groups", "setgroups", (len(process.groups), groups)),
        Op("set the group", "setresgid", (process.gid,) * 3),
        Op("set the user", "setresuid", (process.uid,) * 3),
        Op("forget to keep capabilities", "prctl", (sys.PR_SET_KEEPCAPS, 0, 0, 0, 0)),
        Op(
            "clear the ambient capabilities",
            "prctl",
            (sys.PR_CAP_AMBIENT, sys.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0),
            ignore=(errno.EINVAL,),
        ),
    ]
    permitted, effective = process.permitted & bounds.permitted, process.effective & bounds.permitted
    inheritable = process.inheritable & permitted
    final = [_capset(permitted, effective & permitted, inheritable)]
    final += [
        Op(f"raise ambient {name}", "prctl", (sys.PR_CAP_AMBIENT, sys.PR_CAP_AMBIENT_RAISE, number, 0, 0))
        for number, name in enumerate(capability.NAMES)
        if (process.ambient & inheritable) >> number & 1
    ]
    quiet = [
        Op("mark descriptors close-on-exec", "close_range", (3 + preserved, (1 << 32) - 1, sys.CLOSE_RANGE_CLOEXEC)),
        Op("unblock signals", "rt_sigprocmask", (2, bytes(8), 0, 8)),
        Op(f"set umask {process.umask:o}", "umask", (process.umask,)),
    ]
    if process.no_new_privileges:
        ops.append(Op("forbid new privileges", "prctl", (sys.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)))
    if filter_ is None:
        return Block([*ops, *quiet, *final])
    install = Op(
        "install the seccomp filter",
        "seccomp",
        (sys.SECCOMP_SET_MODE_FILTER, filter_.flags, Struct((filter_.length, filter_.code))),
    )
    if process.no_new_privileges:
        return Block([*ops, *quiet, *final, install])
    # Dropping from the bounding set does not touch what the process itself still holds.
    keep = _capset(permitted | capability.SYS_ADMIN, permitted | capability.SYS_ADMIN, inheritable)
    return Block([*ops, *quiet, keep, install, *final])


def _scheduled(process: Process) -> list[Op]:
    """Scheduling policy and I/O priority, while there still is the right to raise them."""
    ops: list[Op] = []
    if process.scheduler is not None:
        policy, flags, nice, *rest = process.scheduler
        attributes = struct.pack("<IIQiIQQQ", _SCHED_ATTR_BYTES, policy, flags, nice, *rest)
        ops.append(Op("set the scheduling policy", "sched_setattr", (0, attributes, 0)))
    if process.io_priority is not None:
        ops.append(Op("set the I/O priority", "ioprio_set", (_IOPRIO_WHO_PROCESS, 0, process.io_priority)))
    return ops


def _capset(permitted: int, effective: int, inheritable: int) -> Op:
    low = (1 << 32) - 1
    data = struct.pack(
        "<6I", effective & low, permitted & low, inheritable & low, effective >> 32, permitted >> 32, inheritable >> 32
    )
    return Op("set capabilities", "capset", (struct.pack("<II", _CAPABILITY_VERSION_3, 0), data))


def limits(wanted: tuple[tuple[int, int, int], ...], bounds: Bounds) -> list[tuple[int, int, int]]:
    """(resource, soft, hard): what was asked for, cut to what this process may give, and the host's defaults.

    What a user asked for is not cut: the agent has looked (`agent.container.host`). Podman wants by itself more than
    many a host has."""
    hard_limits = {} if bounds.permitted & capability.SYS_RESOURCE else dict(bounds.hard_limits)
    chosen = {number: (number, soft, hard) for number, soft, hard in bounds.default_limits}
    for number, soft, hard in wanted:
        ceiling = hard_limits.get(number, _UNLIMITED)
        chosen[number] = (number, min(soft, hard, ceiling), min(hard, ceiling))
    return list(chosen.values())


def limit_name(number: int) -> str:
    """As the specification writes it: RLIMIT_NOFILE."""
    names = (name for name in dir(resource) if name.startswith("RLIMIT_") and getattr(resource, name) == number)
    return next(names, "RLIMIT_LOCKS")  # which Python does not know


def command(process: Process) -> Block:
    """The execve itself, once per directory of PATH for a plain name."""
    return _command(process.args, process.env, tuple(_places(process)))


@lru_cache(maxsize=64)  # a health check is the same one again and again
def _command(args: tuple[str, ...], env: tuple[str, ...], places: tuple[str, ...]) -> Block:
    arguments = Vector(tuple(os.fsencode(text) for text in args))
    environment = Vector(tuple(os.fsencode(text) for text in env))
    name = args[0]
    step = f'exec "{name}"'
    if "/" in name:
        return Block([Op(step, "execve", (os.fsencode(name), arguments, environment))])
    return Block(
        Op(step, "execve", (os.fsencode(f"{place.rstrip('/')}/{name}"), arguments, environment), ignore=_TRY_NEXT)
        for place in places
    )


def found(process: Process) -> list[Op]:
    """Look the command up without running it, so that one that is not there is told before the start."""
    name = process.args[0]
    paths = [name] if "/" in name else [f"{place.rstrip('/')}/{name}" for place in _places(process)]
    return [
        Op(
            f'exec "{name}"',
            "faccessat",
            (sys.AT_FDCWD, os.fsencode(path), os.X_OK),
            ignore=_TRY_NEXT if left else (),
            then=left,
        )
        for left, path in zip(reversed(range(len(paths))), paths, strict=True)
    ]


def _places(process: Process) -> list[str]:
    return [place for place in process.path.split(":") if place.startswith("/")] or ["/nonexistent"]


@lru_cache(maxsize=64)
def standard_streams(stdin: int, stdout: int, stderr: int) -> Block:
    """Put three descriptors on 0, 1 and 2; those that are there already stay."""
    return Block(
        Op(f"set descriptor {number}", "dup3", (Fd(fd), number, 0))
        for number, fd in enumerate((stdin, stdout, stderr))
        if fd != number
    )


def entered(tasks: tuple[int, ...]) -> list[Op]:
    """Join v1 cgroups through their open `tasks` files."""
    return [Op("join the cgroup", "write", (Fd(fd), b"0", 1)) for fd in tasks]
