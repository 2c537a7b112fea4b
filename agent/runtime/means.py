"""What this process can give to a container: limits and capabilities, device nodes, the filter of its configuration."""

from __future__ import annotations

import os
import resource
import stat

from agent.runtime import capability, seccomp
from agent.runtime.confine import Bounds
from agent.runtime.failure import Failure
from agent.runtime.spec.config import Spec


def compiled(config: Spec) -> seccomp.Filter | None:
    """The filter of a configuration, if it has one. Raises Failure for what it cannot express."""
    if config.seccomp is None:
        return None
    try:
        return seccomp.compile_profile(config.seccomp)
    except (ValueError, KeyError, TypeError) as error:
        raise Failure("InvalidArgument", f"config: linux.seccomp: {error}") from error


def bounds(nofile: int) -> Bounds:
    """What this process can give; `nofile` is the soft limit of descriptors for who names none."""
    hard = []
    for name in dir(resource):
        if name.startswith("RLIMIT_") and name != "RLIMIT_OFILE":
            number = getattr(resource, name)
            limit = resource.getrlimit(number)[1]
            hard.append((number, limit if limit != resource.RLIM_INFINITY else (1 << 64) - 1))
    most = dict(hard)[resource.RLIMIT_NOFILE]
    return Bounds(capability.own_permitted(), tuple(hard), ((resource.RLIMIT_NOFILE, min(nofile, most), most),))


def can_mknod(path: str) -> bool:
    """In a host that is itself a container, making device nodes may be forbidden: then they are bind mounts."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    except PermissionError:
        return False
    os.unlink(path)  # noqa: PTH108 - one line of strings
    return True
