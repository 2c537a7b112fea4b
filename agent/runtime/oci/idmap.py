"""User namespaces as id maps: written for a container's own, and made without a process for mounts with mapped ids."""

from __future__ import annotations

import os
import signal
import struct
from collections.abc import Iterable
from pathlib import Path

from agent.kernel import syscalls as sys
from agent.runtime.failure import Failure
from agent.runtime.spec.config import Spec
from agent.runtime.spec.mount import IdMapping, Mount


def write(pid: int, uids: Iterable[IdMapping], gids: Iterable[IdMapping]) -> None:
    """Give the user namespace of a process its maps, once. Raises Failure with what the kernel refused."""
    for name, mappings in (("uid_map", uids), ("gid_map", gids)):
        text = "".join(f"{inside} {outside} {size}\n" for inside, outside, size in mappings)
        try:
            Path(f"/proc/{pid}/{name}").write_text(text, encoding="ascii")
        except OSError as error:
            raise Failure("StartFailed", f"cannot map ids ({name} <- {text!r}): {error.strerror}") from error


def outside(inside: int, mappings: Iterable[IdMapping]) -> int:
    """The host's id of a container's; without maps it is the same. Raises Failure for one that is not mapped."""
    mappings = tuple(mappings)
    for first, host, size in mappings:
        if first <= inside < first + size:
            return host + inside - first
    if mappings:
        raise Failure("InvalidArgument", f"config: id {inside} is not mapped in the user namespace")
    return inside


def namespace(uids: Iterable[IdMapping], gids: Iterable[IdMapping]) -> int:
    """A descriptor of a user namespace with these maps; the caller closes it."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            sys.call("unshare", sys.CLONE_NEWUSER)
            os.write(writer, b"1")
            signal.pause()
        finally:
            os._exit(1)
    os.close(writer)
    try:
        if not os.read(reader, 1):
            raise Failure("Unsupported", "this host makes no user namespaces", "see sysctl user.max_user_namespaces")
        write(child, uids, gids)
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(reader)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def mapped(mount: Mount, spec: Spec) -> int:
    """A detached copy of a bind mount's source, its ids mapped as the mount or else the container wants them."""
    flags = sys.OPEN_TREE_CLONE | sys.OPEN_TREE_CLOEXEC | (sys.AT_RECURSIVE if mount.recursive else 0)
    try:
        tree = sys.call("open_tree", sys.AT_FDCWD, os.fsencode(mount.source), flags)
    except OSError as error:
        raise Failure("StartFailed", f"cannot bind {mount.source} to {mount.destination}: {error.strerror}") from error
    user = namespace(mount.uids or spec.uids, mount.gids or spec.gids)
    try:
        depth = sys.AT_RECURSIVE if mount.deep_id_mapped else 0
        attributes = struct.pack("<QQQQ", sys.MOUNT_ATTR_IDMAP, 0, 0, user)
        sys.call("mount_setattr", tree, b"", sys.AT_EMPTY_PATH | depth, attributes, len(attributes))
    except OSError as error:
        os.close(tree)
        raise Failure(
            "Unsupported",
            f"config: mount {mount.destination}: ids of {mount.source} cannot be mapped: {error.strerror}",
            "its file system, or this kernel, does not know idmapped mounts",
        ) from error
    finally:
        os.close(user)
    return tree
