"""`tmpcopyup`: a tmpfs that begins with what the image has in its place.

It is filled before the container exists, as a detached mount. The image is hostile: what is copied is found inside its
root and never followed out of it, and nothing is opened but plain files.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable

from agent.kernel import openat2
from agent.kernel import syscalls as sys
from agent.runtime.failure import Failure
from agent.runtime.spec.mount import Mount

_PLACE = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def filled(mount: Mount, rootfs: str) -> int:
    """A descriptor of the detached tmpfs, whose flags are yet to be set. Raises Failure naming the mount."""
    try:
        return _filled(mount, rootfs)
    except OSError as error:
        raise Failure("StartFailed", f"mount {mount.destination}: tmpcopyup: {error}") from error


def _filled(mount: Mount, rootfs: str) -> int:
    context = sys.call("fsopen", b"tmpfs", sys.FSOPEN_CLOEXEC)
    try:
        for option in filter(None, mount.data.split(",")):
            key, equals, value = option.partition("=")
            kind = sys.FSCONFIG_SET_STRING if equals else sys.FSCONFIG_SET_FLAG
            sys.call("fsconfig", context, kind, key.encode(), value.encode() if equals else None, 0)
        sys.call("fsconfig", context, sys.FSCONFIG_CMD_CREATE, None, None, 0)
        tree = sys.call("fsmount", context, sys.FSMOUNT_CLOEXEC, 0)
    finally:
        os.close(context)
    root = os.open(rootfs, _PLACE)
    try:
        with contextlib.suppress(FileNotFoundError):
            source = openat2.open_in_root(root, mount.destination, _PLACE)
            try:
                _between(".", source, tree, _PLACE, _PLACE, _copy)
            finally:
                os.close(source)
    except OSError:
        os.close(tree)
        raise
    finally:
        os.close(root)
    return tree


def _copy(source: int, target: int) -> None:
    """Everything in a directory, with owners and modes. Links are copied, devices and sockets left out."""
    about = os.fstat(source)
    os.fchown(target, about.st_uid, about.st_gid)
    os.fchmod(target, stat.S_IMODE(about.st_mode))
    for name in os.listdir(source):
        entry = os.stat(name, dir_fd=source, follow_symlinks=False)
        if stat.S_ISDIR(entry.st_mode):
            os.mkdir(name, dir_fd=target)
            _between(name, source, target, _PLACE | os.O_NOFOLLOW, _PLACE, _copy)
        elif stat.S_ISREG(entry.st_mode):
            _between(
                name, source, target, os.O_RDONLY | os.O_NOFOLLOW, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _copy_file
            )
        elif stat.S_ISLNK(entry.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
            os.chown(name, entry.st_uid, entry.st_gid, dir_fd=target, follow_symlinks=False)


def _between(name: str, source: int, target: int, reading: int, writing: int, copy: Callable[[int, int], None]) -> None:
    ours = os.open(name, reading | os.O_CLOEXEC, dir_fd=source)
    try:
        theirs = os.open(name, writing | os.O_CLOEXEC, 0o600, dir_fd=target)
        try:
            copy(ours, theirs)
        finally:
            os.close(theirs)
    finally:
        os.close(ours)


def _copy_file(source: int, target: int) -> None:
    about = os.fstat(source)
    while data := os.read(source, 1 << 20):
        os.write(target, data)
    os.fchown(target, about.st_uid, about.st_gid)
    os.fchmod(target, stat.S_IMODE(about.st_mode))
