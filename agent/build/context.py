"""Contexts: the files that clients send to build from, by the digest of their content, kept for the next build.

    files/<2 digits>/<62 digits>    one content, never changed again
    lists/<context>                 the digests that the last build of a context had
    fresh/<random>                  being written; swept by the next `Contexts`

What no context's last build had, and no build that runs now, goes. A context that was not built for a week is
forgotten. Blocking; one instance per folder, which many threads may call.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from agent.image import content
from shoal import digest as digests
from shoal.errors import InvalidArgument
from shoal.ids import new_id

_FORGOTTEN_S = 7 * 24 * 3600
_RAW = 32


class Remembered(msgspec.Struct, frozen=True):
    """A context by its name, and when it was built last."""

    name: str
    size_bytes: int
    used_at_ns: int


class Contexts:
    def __init__(self, folder: Path) -> None:
        self.files = folder / "files"
        self._lists = folder / "lists"
        self._fresh = folder / "fresh"
        for each in (self.files, self._lists, self._fresh):
            each.mkdir(parents=True, exist_ok=True, mode=0o700)
        content.empty_folder(self._fresh)
        self._lock = threading.Lock()
        self._users: dict[str, frozenset[str]] = {}
        self._known = {
            f"sha256:{folder.name}{each.name}" for folder in os.scandir(self.files) for each in os.scandir(folder.path)
        }
        self._listed = {each.name: _read(each) for each in self._lists.iterdir() if not self._forget(each)}
        self._sweep()

    def missing(self, wanted: Iterable[str]) -> list[str]:
        return sorted(set(wanted) - self._known)

    def path(self, digest: str) -> Path:
        name = digest.partition(":")[2]
        return self.files / name[:2] / name[2:]

    def size_bytes(self) -> int:
        return sum(self.path(each).stat().st_size for each in self._known)

    @contextmanager
    def using(self, name: str, wanted: Collection[str]) -> Iterator[list[str]]:
        """A build of the context `name`, empty for one that is not to be remembered, needs these files: until it ends
        they stay, and until the next build of the same context. Yields those that are not here yet."""
        user = new_id()
        with self._lock:
            self._users[user] = frozenset(wanted)
        try:
            yield self.missing(wanted)
        finally:
            with self._lock:
                held = self._users.pop(user)
                changed = bool(name) and self._listed.get(name) != held
                if changed:
                    self._listed[name] = held
                    (self._lists / name).write_bytes(b"".join(bytes.fromhex(each[7:]) for each in sorted(held)))
                elif name:
                    os.utime(self._lists / name)
                if changed or not name:
                    self._sweep()

    def writer(self, digest: str) -> Writer:
        """A content on its way in, that must come out as `digest`."""
        return Writer(self, self._fresh / new_id(), digests.check(digest) if digest else "")

    def store(self, data: bytes, expected: str = "") -> str:
        """A content that is here; its digest, which must be the one that was expected. It stays as long as somebody is
        `using` it."""
        digest = digests.of(data)
        if expected and digest != expected:
            raise InvalidArgument(f"a file of the build context came as {digest} and was announced as {expected}")
        if digest not in self._known:
            fresh = self._fresh / new_id()
            try:
                with content.told("cannot store the build context"):
                    fresh.write_bytes(data)
                    self.publish(fresh, digest)
            except BaseException:
                fresh.unlink(missing_ok=True)
                raise
        return digest

    def publish(self, temporary: Path, digest: str) -> None:
        """Called by Writer."""
        path = self.path(digest)
        try:
            temporary.rename(path)
        except FileNotFoundError:  # the first one of its folder
            path.parent.mkdir(exist_ok=True, mode=0o700)
            temporary.rename(path)
        self._known.add(digest)

    def also(self, wanted: Collection[str]) -> None:
        """For the builds that run, these stay too."""
        with self._lock:
            self._users = {user: held | frozenset(wanted) for user, held in self._users.items()}

    def measured(self) -> list[Remembered]:
        """The contexts that were built last; a file of several counts for one of them."""
        with self._lock:
            found, counted = [], set[str]()
            for name, held in self._listed.items():
                size_bytes = sum(self.path(each).stat().st_size for each in held & self._known - counted)
                counted |= held
                found.append(Remembered(name, size_bytes, self._used_at_ns(name)))
            return found

    def prune(self, *, before_ns: int) -> int:
        """Forget the contexts that were last built before then, but for what builds use now; the bytes that this
        frees."""
        with self._lock:
            before = self.size_bytes()
            for name in list(self._listed):
                if self._used_at_ns(name) < before_ns:
                    del self._listed[name]
                    (self._lists / name).unlink(missing_ok=True)
            self._sweep()
            return before - self.size_bytes()

    def _used_at_ns(self, name: str) -> int:
        """0 for one that a full disk kept from being written down."""
        try:
            return (self._lists / name).stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    def _sweep(self) -> None:
        wanted = frozenset().union(*self._listed.values(), *self._users.values())
        for digest in self._known - wanted:
            self._known.discard(digest)
            self.path(digest).unlink(missing_ok=True)

    def _forget(self, path: Path) -> bool:
        if time.time() - path.stat().st_mtime < _FORGOTTEN_S:
            return False
        path.unlink()
        return True


class Writer:
    """One content on its way in. `commit` or `abort` ends it."""

    def __init__(self, contexts: Contexts, path: Path, digest: str) -> None:
        self._contexts = contexts
        self._path = path
        self._digest = digest
        self._hash = hashlib.sha256()
        with content.told("cannot store the build context"):
            self._file = path.open("xb", buffering=0)

    def write(self, data: bytes) -> None:
        self._hash.update(data)
        with content.told("cannot store the build context"):
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) :]

    def digest(self) -> str:
        """Of what came so far."""
        return f"sha256:{self._hash.hexdigest()}"

    def commit(self) -> str:
        found = self.digest()
        if self._digest and found != self._digest:
            raise InvalidArgument(f"a file of the build context came as {found} and was announced as {self._digest}")
        self._file.close()
        self._contexts.publish(self._path, found)
        return found

    def abort(self) -> None:
        """Leave nothing behind; harmless after `commit`."""
        self._file.close()
        self._path.unlink(missing_ok=True)


def _read(path: Path) -> frozenset[str]:
    data = path.read_bytes()
    return frozenset(f"sha256:{data[at : at + _RAW].hex()}" for at in range(0, len(data), _RAW))
