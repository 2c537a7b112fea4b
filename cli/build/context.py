"""A context: which files of a folder a build may see, and what is in them, without reading what was read before.

The digest of a file is remembered beside its size, inode and times, per folder, under the user's cache directory: who
builds again reads what has changed. A file that changed within the last second is read again the next time, since its
times could not tell of another change.
"""

from __future__ import annotations

import contextlib
import hashlib
import marshal
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from shoal.errors import ShoalError
from shoal.files import read_optional, write_atomic
from shoal.pattern import Matcher, read_ignore

_UNSURE_NS = 10**9
_CHUNK = 1 << 20
# Then come a digest and a `_Known` in the form of the interpreter's own caches, for which nothing has to be imported.
_FORM = b"shoal context 2\n"

# path → (size, mtime, ctime, inode, digest)
_Known = dict[bytes, tuple[int, int, int, int, bytes]]


class Context:
    """`paths` and the columns beside it are in the order in which the folder was walked."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.paths: list[bytes] = []
        self.modes: list[int] = []
        self.sizes: list[int] = []
        self.modified_at_ns: list[int] = []
        self.contents: list[bytes] = []

    def file(self, digest: bytes) -> Path:
        """A file that has this content."""
        return self.root / os.fsdecode(self.paths[self.contents.index(digest)])

    def add(self, path: bytes, about: os.stat_result, content: bytes) -> None:
        self.paths.append(path)
        self.modes.append(about.st_mode)
        self.sizes.append(about.st_size)
        self.modified_at_ns.append(about.st_mtime_ns)
        self.contents.append(content)


def ignored(root: Path, dockerfile: Path | None) -> Matcher:
    """What a `.dockerignore` hides: the one of the Dockerfile (`NAME.dockerignore`) counts before the context's."""
    candidates = [] if dockerfile is None else [dockerfile.with_name(f"{dockerfile.name}.dockerignore")]
    for path in (*candidates, root / ".dockerignore"):
        data = read_optional(path)
        if data is not None:
            return Matcher(read_ignore(data.decode("utf-8", "surrogateescape")))
    return Matcher(())


def gather(root: Path, hidden: Matcher, name: str, *, now_ns: int) -> Context:
    """Raises ShoalError for a file that cannot be read. `name` is what it is remembered by; empty: it is not."""
    cache = _cache_path(name) if name else None
    known = _load(cache) if cache else {}
    context = Context(root)
    fresh: _Known = {}
    read = False
    unsure_ns = now_ns - _UNSURE_NS
    for path, entry in _walk(os.fsencode(root), hidden):
        about = entry.stat(follow_symlinks=False)
        kind = stat.S_IFMT(about.st_mode)
        if kind == stat.S_IFDIR:
            context.add(path, about, b"")
        elif kind == stat.S_IFLNK:
            context.add(path, about, os.readlink(entry.path))  # noqa: PTH115 - bytes
        elif kind == stat.S_IFREG:
            key = (about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino)
            held = known.get(path)
            if held is None or held[:4] != key:
                held, read = (*key, _digest(entry.path)), True
            context.add(path, about, held[4])
            if max(key[1], key[2]) < unsure_ns:
                fresh[path] = held
    if cache and (read or len(fresh) != len(known)):
        _save(cache, fresh)
    return context


def name_of(root: Path) -> str:
    """By which a context is known on the agent: its folder on this host."""
    return hashlib.sha256(f"{socket.gethostname()}\0{root.resolve()}".encode(errors="surrogateescape")).hexdigest()[:32]


def _walk(root: bytes, hidden: Matcher) -> Iterator[tuple[bytes, os.DirEntry[bytes]]]:
    """(path below the root, what is there), a folder before what is in it. A hidden folder is looked into only where a
    pattern may bring something back."""
    waiting = [(root, b"")]
    while waiting:
        here, prefix = waiting.pop()
        try:
            with os.scandir(here) as found:
                entries = sorted(found, key=lambda each: each.name)
        except OSError as error:
            raise ShoalError(f"cannot read the build context: {os.fsdecode(here)}: {error.strerror}") from error
        for entry in entries:
            path = prefix + entry.name
            gone = bool(hidden) and hidden.matches(os.fsdecode(path))
            folder = entry.is_dir(follow_symlinks=False)
            if not gone:
                yield path, entry
            if folder and (not gone or hidden.brings_back):
                waiting.append((entry.path, path + b"/"))


def _digest(path: bytes) -> bytes:
    digest = hashlib.sha256()
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - bytes
            while piece := file.read(_CHUNK):
                digest.update(piece)
    except OSError as error:
        raise ShoalError(f"cannot read the build context: {os.fsdecode(path)}: {error.strerror}") from error
    return digest.digest()


def _cache_path(name: str) -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "shoal" / "context" / name


def _load(path: Path) -> _Known:
    """What was remembered; nothing where that is of another version, or torn: everything is read once more."""
    data = read_optional(path) or b""
    body = data[len(_FORM) + hashlib.sha256().digest_size :]
    if data != _sealed(body):
        return {}
    found: _Known = marshal.loads(body)
    return found


def _save(path: Path, known: _Known) -> None:
    """A cache that cannot be kept is no reason to fail."""
    with contextlib.suppress(OSError, ShoalError):
        write_atomic(path, _sealed(marshal.dumps(known)), durable=False)


def _sealed(body: bytes) -> bytes:
    return _FORM + hashlib.sha256(body).digest() + body
