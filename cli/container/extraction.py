"""A tar, taken apart in a folder of this machine: from a container, or a context that somebody sent.

Its names and links were made by whoever is in the container, or by nobody knows whom: each component is opened by
descriptor and no link is followed, so nothing lands outside of the folder. What is there is replaced, except that a
folder never takes the place of something else, or the other way round.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import tarfile
from collections.abc import AsyncIterator, Iterator
from typing import IO

from shoal.errors import Conflict, InvalidArgument, ShoalError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1 << 18


async def extract(chunks: AsyncIterator[bytes], folder: str, *, keep_owner: bool) -> int:
    """Take the tar apart below `folder`, which exists; the bytes of its files. Raises ShoalError; what came before
    stays."""
    stream = _Stream(chunks, asyncio.get_running_loop())
    return await asyncio.to_thread(_extract, stream, folder, keep_owner)


class _Stream:
    """An asynchronous stream as a file to read, for one thread that is not the loop's."""

    def __init__(self, chunks: AsyncIterator[bytes], loop: asyncio.AbstractEventLoop) -> None:
        self._chunks = chunks
        self._loop = loop
        self._held = b""

    def read(self, size: int) -> bytes:
        while len(self._held) < size:
            chunk = asyncio.run_coroutine_threadsafe(self._next(), self._loop).result()
            if chunk is None:
                break
            self._held += chunk
        data, self._held = self._held[:size], self._held[size:]
        return data

    async def _next(self) -> bytes | None:
        return await anext(self._chunks, None)


def _extract(stream: _Stream, folder: str, keep_owner: bool) -> int:
    try:
        with tarfile.open(fileobj=stream, mode="r|", bufsize=tarfile.RECORDSIZE) as archive:  # type: ignore[call-overload]
            return take_apart(archive, folder, keep_owner=keep_owner)
    except OSError as error:
        raise ShoalError(f"cannot copy to {folder}: {error.strerror} ({error.filename})") from error


def take_apart(archive: tarfile.TarFile, folder: str, *, keep_owner: bool) -> int:
    """What `extract` does, of an archive that is open. Blocks. Raises ShoalError, OSError and `tarfile.TarError`."""
    extraction = _Extraction(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), keep_owner=keep_owner)
    try:
        for member in archive:
            extraction.apply(member, archive)
        extraction.finish()
    finally:
        extraction.close()
    return extraction.size_bytes


class _Extraction:
    def __init__(self, root: int, *, keep_owner: bool) -> None:
        self._root = root
        self._keep_owner = keep_owner
        # Their own mode would keep us from filling them, and filling them changes their time.
        self._folders: list[tuple[tuple[str, ...], tarfile.TarInfo]] = []
        self.size_bytes = 0

    def close(self) -> None:
        os.close(self._root)

    def apply(self, member: tarfile.TarInfo, archive: tarfile.TarFile) -> None:
        path = _parts(member.name)
        if not path:
            return
        with self._opened(path[:-1], make=True) as parent:
            self._clear(path, parent, folder=member.isdir())
            if member.isdir():
                self._folder(path, parent, member)
            elif member.isreg():
                self._file(path[-1], parent, member, archive.extractfile(member))
            elif member.islnk():
                source = _parts(member.linkname)
                with self._opened(source[:-1]) as other:
                    os.link(source[-1], path[-1], src_dir_fd=other, dst_dir_fd=parent, follow_symlinks=False)
            elif member.issym():
                os.symlink(member.linkname, path[-1], dir_fd=parent)
            else:
                self._node(path[-1], parent, member)

    def finish(self) -> None:
        for path, member in reversed(self._folders):
            with self._opened(path) as folder:
                self._dress(folder, member)

    @contextlib.contextmanager
    def _opened(self, path: tuple[str, ...], *, make: bool = False) -> Iterator[int]:
        """The folder at `path`, for as long as the block runs."""
        here = os.dup(self._root)
        try:
            for name in path:
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(name, 0o755, dir_fd=here)
                below = os.open(name, _FOLDER, dir_fd=here)
                os.close(here)
                here = below
            yield here
        finally:
            os.close(here)

    def _clear(self, path: tuple[str, ...], parent: int, *, folder: bool) -> None:
        """Make room. Raises Conflict where a folder would take the place of something else, or the other way."""
        try:
            there = os.stat(path[-1], dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(there.st_mode) != folder:
            kinds = ("non-directory", "directory") if folder else ("directory", "non-directory")
            raise Conflict(f'cannot overwrite {kinds[0]} "{"/".join(path)}" with {kinds[1]}')
        if not folder:
            os.unlink(path[-1], dir_fd=parent)

    def _folder(self, path: tuple[str, ...], parent: int, member: tarfile.TarInfo) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path[-1], 0o700, dir_fd=parent)
        self._folders.append((path, member))

    def _file(self, name: str, parent: int, member: tarfile.TarInfo, content: IO[bytes] | None) -> None:
        descriptor = os.open(name, _NEW, 0o600, dir_fd=parent)
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            while content is not None and (piece := content.read(_CHUNK)):
                view = memoryview(piece)
                while view:
                    view = view[file.write(view) or 0 :]
                self.size_bytes += len(piece)
            self._dress(file.fileno(), member)

    def _node(self, name: str, parent: int, member: tarfile.TarInfo) -> None:
        kind = stat.S_IFIFO if member.isfifo() else stat.S_IFBLK if member.isblk() else stat.S_IFCHR
        os.mknod(name, kind | member.mode, os.makedev(member.devmajor, member.devminor), dir_fd=parent)

    def _dress(self, descriptor: int, member: tarfile.TarInfo) -> None:
        if self._keep_owner:
            os.fchown(descriptor, member.uid, member.gid)  # before the mode: chown(2) takes set-uid bits away
        os.fchmod(descriptor, member.mode)
        os.utime(descriptor, (member.mtime, member.mtime))


def _parts(name: str) -> tuple[str, ...]:
    parts = tuple(each for each in name.split("/") if each not in ("", "."))
    if ".." in parts:
        raise InvalidArgument(f"the archive holds {name!r}, which leads out of it")
    return parts
