"""Seeding: what the image holds at a volume's target is copied into the volume (`Volumes.fill` says when).

Owners, modes, times, hard links, extended attributes and special files are kept. The source is a `RootView`, so
no link in the image leads out of it; the destination is a fresh folder that nobody else writes to.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from agent.container.rootview import Folder, RootView
from shoal.errors import InvalidArgument

# Each level holds descriptors open; no honest image comes near.
_MAX_DEPTH = 128
_CHUNK = 1 << 20


def seed(layers: Sequence[str], target: str, destination: Path) -> bool:
    """Copy the folder at `target` in the image of these layers (top first) to `destination`, which must not exist.

    False, and nothing made, where the image has no folder there. Raises InvalidArgument for an image that cannot
    be copied and OSError for a full disk; what was copied until then stays.
    """
    with RootView(layers) as view, view.folder(target) as source:
        if source is None:
            return False
        destination.mkdir(mode=0o700)
        into = os.open(destination, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _copy_folder(source, into, {}, 0)
        finally:
            os.close(into)
        return True


# (device, inode) of a file with several names → its first copy.
_Links = dict[tuple[int, int], Path]


def _copy_folder(source: Folder, into: int, links: _Links, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise InvalidArgument(f"image content for a volume is nested deeper than {_MAX_DEPTH} folders")
    for name in source.names():
        below = source.folder(name)
        if below is None:
            _copy_entry(source, name, into, links)
            continue
        with below:
            os.mkdir(name, 0o700, dir_fd=into)
            child = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=into)
            try:
                _copy_folder(below, child, links, depth + 1)
            finally:
                os.close(child)
    _keep(source.descriptors[0], into)


def _copy_entry(source: Folder, name: str, into: int, links: _Links) -> None:
    found = source.look_up(name)
    if found is None:
        return
    parent, about = found
    key = (about.st_dev, about.st_ino)
    if about.st_nlink > 1 and key in links:
        os.link(links[key], name, dst_dir_fd=into, follow_symlinks=False)
        return
    kind = stat.S_IFMT(about.st_mode)
    if kind == stat.S_IFREG:
        _copy_file(parent, name, into)
    elif kind == stat.S_IFLNK:
        os.symlink(os.readlink(name, dir_fd=parent), name, dir_fd=into)
        os.chown(name, about.st_uid, about.st_gid, dir_fd=into, follow_symlinks=False)
        os.utime(name, ns=(about.st_atime_ns, about.st_mtime_ns), dir_fd=into, follow_symlinks=False)
    elif kind in (stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO):
        os.mknod(name, kind | 0o600, about.st_rdev, dir_fd=into)
        os.chown(name, about.st_uid, about.st_gid, dir_fd=into, follow_symlinks=False)
        os.chmod(name, about.st_mode & 0o7777, dir_fd=into)
    else:
        return  # a socket is nothing without its process
    if about.st_nlink > 1:
        links[key] = Path(f"/proc/self/fd/{into}").readlink() / name


def _copy_file(parent: int, name: str, into: int) -> None:
    reading = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        writing = os.open(name, flags, 0o600, dir_fd=into)
        try:
            _copy_bytes(reading, writing)
            _keep(reading, writing)
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def _copy_bytes(reading: int, writing: int) -> None:
    try:
        while os.copy_file_range(reading, writing, _CHUNK):
            pass
    except OSError as error:
        # Volumes on another filesystem, or one without this call (copy_file_range(2)).
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        while os.sendfile(writing, reading, None, _CHUNK):
            pass


def _keep(source: int, copy: int) -> None:
    """Owner, mode, extended attributes, times. In this order: chown clears set-uid and file capabilities."""
    about = os.fstat(source)
    os.fchown(copy, about.st_uid, about.st_gid)
    os.fchmod(copy, about.st_mode & 0o7777)
    for name in os.listxattr(source):
        if not name.startswith("trusted.overlay."):  # they mean nothing outside their layer
            try:
                os.setxattr(copy, name, os.getxattr(source, name))
            except OSError as error:
                if error.errno != errno.EOPNOTSUPP:
                    raise
    os.utime(copy, ns=(about.st_atime_ns, about.st_mtime_ns))
