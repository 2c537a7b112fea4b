"""Writes tar archives as a stream: files, folders, links and devices as they are on disk, pax where ustar is too small.

A path is followed nowhere but where the caller says so; still, whoever packs what somebody else may change meanwhile
does it inside that somebody's root (`agent.container.porter`). Standard library only. `agent.image.tar` reads.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator

END = bytes(1024)
_BLOCK = 512
_CHUNK = 1 << 18
_KINDS = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}
# What of a file's extended attributes means something elsewhere (xattr(7)).
_KEPT_XATTRS = ("user.", "security.capability")
_NOT_HERE = (FileNotFoundError, NotADirectoryError)


class Packer:
    """One archive: files with several names are stored once. What vanishes while it is packed is left out."""

    def __init__(self) -> None:
        self._links: dict[tuple[int, int], str] = {}

    def tree(self, path: str, name: str) -> Iterator[bytes]:
        """`path` as `name`, and in a folder all that is below it, in order; with an empty name only what is below. No
        link is followed."""
        waiting = [(path, name)]
        while waiting:
            here, called = waiting.pop()
            try:
                about = os.lstat(here)
                below = sorted(os.listdir(here), reverse=True) if stat.S_ISDIR(about.st_mode) else []  # noqa: PTH208
            except _NOT_HERE:
                continue
            if called:
                yield from self.entry(here, called, about)
            prefix = "" if called in (".", "") else f"{called}/"
            waiting += [(f"{here.rstrip('/')}/{each}", f"{prefix}{each}") for each in below]

    def entry(self, path: str, name: str, about: os.stat_result) -> Iterator[bytes]:
        """One member, and of a file its data; nothing for a socket, which is nothing without its process."""
        kind = _KINDS.get(stat.S_IFMT(about.st_mode))
        if kind is None:
            return
        info = header(name, about)
        info.type = kind
        if kind == tarfile.DIRTYPE:
            info.name = f"{name.rstrip('/')}/"
        elif about.st_nlink > 1:
            first = self._links.setdefault((about.st_dev, about.st_ino), name)
            if first != name:
                info.type, info.linkname = tarfile.LNKTYPE, first
                yield _bytes(info)
                return
        try:
            if kind == tarfile.SYMTYPE:
                info.linkname = os.readlink(path)  # noqa: PTH115 - strings all around
            elif kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
                info.devmajor, info.devminor = os.major(about.st_rdev), os.minor(about.st_rdev)
            info.pax_headers = _xattrs(path)
            if kind == tarfile.REGTYPE:
                yield from _file(path, info)
                return
        except _NOT_HERE:
            return
        yield _bytes(info)


def header(name: str, about: os.stat_result) -> tarfile.TarInfo:
    """Mode, owner and time; the rest is the caller's."""
    info = tarfile.TarInfo(name)
    info.mode, info.uid, info.gid = about.st_mode & 0o7777, about.st_uid, about.st_gid
    info.mtime = int(about.st_mtime)
    return info


def marker(name: str) -> bytes:
    """An empty file: a layer's sign for what is gone."""
    info = tarfile.TarInfo(name)
    info.mode = 0
    return _bytes(info)


def file_header(name: str, size_bytes: int) -> bytes:
    """Before a file of nobody's in particular and of no time; so many bytes follow, then `padding`."""
    info = tarfile.TarInfo(name)
    info.size = size_bytes
    return _bytes(info)


def padding(size_bytes: int) -> bytes:
    """Behind a file of that size."""
    return bytes(-size_bytes % _BLOCK)


def _file(path: str, info: tarfile.TarInfo) -> Iterator[bytes]:
    """As many bytes as the header says, whatever becomes of the file meanwhile."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            return
        info.size = left = about.st_size
        yield _bytes(info)
        while left and (piece := os.read(descriptor, min(_CHUNK, left))):
            left -= len(piece)
            yield piece
        while left:
            piece = bytes(min(_CHUNK, left))
            left -= len(piece)
            yield piece
    finally:
        os.close(descriptor)
    yield padding(info.size)


def _xattrs(path: str) -> dict[str, str]:
    try:
        names = os.listxattr(path, follow_symlinks=False)
        values = {
            each: os.getxattr(path, each, follow_symlinks=False) for each in names if each.startswith(_KEPT_XATTRS)
        }
    except OSError:  # this filesystem has none
        return {}
    return {f"SCHILY.xattr.{each}": value.decode("utf-8", "surrogateescape") for each, value in values.items()}


def _bytes(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
