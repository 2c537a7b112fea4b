"""The content store: blobs under their digest, verified while they are written, visible only when complete.

    blobs/sha256/<hex>          complete, synced, never changed again
    ingest/<random>             being written; whatever a crash leaves here is swept by the next `Content`
    partial/<hex>               being transferred, or left by a transfer that ended early (`partial`)
    trash/<random>              on its way out (blobs and unpacked layers)

What exists is known in memory, and blobs are thrown away on the event loop only (a rename), so that "is it there"
and "away with it" never interleave. Writers block and belong to worker threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import BinaryIO

from agent.image.partial import Partials
from agent.kernel import syscalls
from shoal import digest as digests
from shoal.errors import Exhausted, InvalidArgument, NotFound
from shoal.ids import new_id

CHUNK = 1 << 20


class Content:
    """The blobs below `root`. One instance per directory at a time."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._ingest = root / "ingest"
        self.trash = root / "trash"
        self._emptying = threading.Lock()
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}
        for folder in (self._ingest, self.trash):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            empty_folder(folder)
        self.partials = Partials(root / "partial", busy=self.taken)
        self._blobs = root / "blobs" / "sha256"
        self._blobs.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._sizes = {f"sha256:{blob.name}": blob.stat().st_size for blob in os.scandir(self._blobs)}

    def __contains__(self, digest: str) -> bool:
        return digest in self._sizes

    def digests(self) -> list[str]:
        return list(self._sizes)

    def size(self, digest: str) -> int:
        """Bytes of a blob. Raises NotFound."""
        try:
            return self._sizes[digest]
        except KeyError as error:
            raise NotFound(f"no content {digest} on this host") from error

    def open(self, digest: str) -> BinaryIO:
        """A blob to read from; it stays readable while open even when it is deleted meanwhile. Raises NotFound."""
        digests.check(digest)
        self.size(digest)
        return self._path(digest).open("rb")

    def read(self, digest: str, *, limit_bytes: int) -> bytes:
        """A small blob as a whole."""
        if self.size(digest) > limit_bytes:
            raise InvalidArgument(f"{digest} has {self.size(digest)} bytes, {limit_bytes} are allowed here")
        with self.open(digest) as blob:
            return blob.read()

    def writer(self, *, digest: str = "", size: int | None = None) -> Writer:
        """Start a blob; with `digest` and `size`, it must come out as these."""
        return Writer(self, self._ingest / new_id(), digest=digest, size=size)

    def resumed(self, digest: str, size: int) -> Writer:
        """The same for a blob from elsewhere, after what an earlier transfer left of it. Only while `alone` with it."""
        writer = Writer(self, self.partials.path(digest), digest=digest, size=size)
        writer.resume()
        return writer

    def arrived(self, digest: str) -> None:
        """A blob that was `resumed` is complete, and what it is for may come to nothing yet."""
        self.partials.arrived(digest, self._path(digest))

    def publish(self, temporary: Path, digest: str, size: int) -> None:
        """Make a finished, synced file visible (called by Writer)."""
        path = self._path(digest)
        temporary.rename(path)
        sync_folder(path.parent)
        self._sizes[digest] = size

    def discard(self, digest: str) -> None:
        """Forget a blob at once; the bytes go with the next `empty_trash`."""
        if self._sizes.pop(digest, None) is not None:
            self._path(digest).rename(self.trash / new_id())

    def empty_trash(self) -> None:
        """Free what was thrown away. Blocks; several threads may call it."""
        with self._emptying:
            empty_folder(self.trash)
        self.partials.sweep()

    @contextlib.asynccontextmanager
    async def alone(self, key: str) -> AsyncIterator[None]:
        """One at a time per key (a digest, a chain id): a second pull waits and then finds the thing there."""
        lock, users = self._locks.get(key, (asyncio.Lock(), 0))
        self._locks[key] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks[key]
            if users == 1:
                del self._locks[key]
            else:
                self._locks[key] = (lock, users - 1)

    def taken(self, key: str) -> bool:
        """Whether somebody has `key` alone just now."""
        return key in self._locks

    def _path(self, digest: str) -> Path:
        return self._blobs / digest.partition(":")[2]


class Writer:
    """One blob on its way in. Used by one thread at a time; `commit` or `abort` ends it."""

    def __init__(self, content: Content, path: Path, *, digest: str, size: int | None) -> None:
        self._content = content
        self._path = path
        self._wanted = digests.check(digest) if digest else ""
        self._size = size
        self._hash = hashlib.sha256()
        self.offset = 0
        # Bytes of an earlier transfer, for which who sends now cannot be blamed.
        self.inherited = 0
        with told("cannot start a download"):
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def resume(self) -> None:
        """Take up what is there."""
        while piece := os.read(self._file, CHUNK):
            self._hash.update(piece)
            self.offset += len(piece)
        self.inherited = self.offset
        if self._size is not None and self.offset > self._size:
            self.restart()

    def write(self, data: bytes) -> None:
        """Append. Raises InvalidArgument once there is more than was announced, Exhausted when the disk is full."""
        if self._size is not None and self.offset + len(data) > self._size:
            raise InvalidArgument(f"{self._wanted or 'the content'} is longer than the {self._size} bytes announced")
        with told("cannot store image content"):
            view = memoryview(data)
            while view:
                view = view[os.write(self._file, view) :]
        self._hash.update(data)
        self.offset += len(data)

    def restart(self) -> None:
        """Forget what came so far, because it was wrong."""
        os.ftruncate(self._file, 0)
        os.lseek(self._file, 0, os.SEEK_SET)
        self._hash = hashlib.sha256()
        self.offset = self.inherited = 0

    @property
    def complete(self) -> bool:
        """Whether as much is here as was announced."""
        return self.offset == self._size

    def verify(self) -> str:
        """The digest. Raises InvalidArgument when it, or the length, is not what was announced."""
        found = f"sha256:{self._hash.hexdigest()}"
        if self._size is not None and self.offset != self._size:
            raise InvalidArgument(f"{self._wanted or found} has {self.offset} bytes, {self._size} were announced")
        if self._wanted and found != self._wanted:
            raise InvalidArgument(f"the content that came for {self._wanted} has the digest {found}")
        return found

    def commit(self) -> str:
        """Verify, sync and make visible; the digest. After a failure, `abort` is still to be called."""
        digest = self.verify()
        with told("cannot store image content"):
            os.fsync(self._file)
            self._content.publish(self._path, digest, self.offset)
        self._close()
        return digest

    def leave(self) -> None:
        """End early; what came stays for the next transfer. Harmless after `commit`."""
        if self._file >= 0 and self.offset:
            self._close()
        self.abort()

    def abort(self) -> None:
        """Leave nothing behind; harmless after `commit`."""
        if self._file >= 0:
            self._close()
            self._path.unlink(missing_ok=True)

    def _close(self) -> None:
        os.close(self._file)
        self._file = -1


@contextlib.contextmanager
def told(what: str) -> Iterator[None]:
    """A full disk is told as Exhausted; any other failure of the system stays what it is."""
    try:
        yield
    except OSError as error:
        raise_full(error.errno, what, error)
        raise


def raise_full(number: int | None, what: str, cause: BaseException | None = None) -> None:
    """Raise Exhausted when errno says that there is no room."""
    if number in (errno.ENOSPC, errno.EDQUOT):
        raise Exhausted(f"{what}: no space left on device", hint="free some space on the host's disk") from cause


def empty_folder(folder: Path) -> None:
    """Delete everything in `folder`, following nothing. Directories are moved up into it before they are looked into,
    so that no depth that an image chose can exhaust the stack or the length of a path; and into no other folder, which
    another thread may be emptying."""
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        for child in list(os.scandir(here)):  # a snapshot: moves into a folder that is being read come up twice
            if child.is_dir(follow_symlinks=False):
                waiting.append(Path(child.path).rename(folder / new_id()))
            else:
                Path(child.path).unlink()
        if here != folder:
            here.rmdir()


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power cut (fsync(2))."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_filesystem(path: Path) -> None:
    """Make all that is on the disk of the folder `path` survive a power cut (syncfs(2))."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syscalls.call("syncfs", descriptor)
    finally:
        os.close(descriptor)
