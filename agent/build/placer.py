"""The program that puts files into a step's layer, run as a child that is locked inside the image it changes.

It mounts the layers below with the step's own folder on top in a mount namespace of its own, changes its root into
that, forgets how to import, and only then reads what to make: so every link of the image resolves inside the image.
`transfer` is the parent.

Standard input: one line of JSON (`Order`), then either lines of JSON, one per file, whose contents it takes from the
folder of a context's files (`files`), or an archive. Names begin with "d/" for what goes below the destination as a
folder, with "f/" for a file that goes into it where it is a folder and takes its place where not; "d" alone is the
folder itself. Output: nothing, or one JSON object {"error", "errno", "refused"}. Standard library and siblings only.
"""

from __future__ import annotations

import json
import os
import posixpath
import signal
import stat
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from agent.image import tar
from agent.image.tar import CorruptArchive, Entry
from agent.image.unpack import Refused, Target, clean, enter, is_folder, show
from agent.kernel import syscalls

_PR_SET_PDEATHSIG = 1
_CHUNK = 1 << 20


class Order(NamedTuple):
    """`place` as `agent.image.unpack` takes it. `several`: the destination must be a folder. `owner` and `mode` are
    None where each file keeps its own; `files` is the folder of contents by digest, empty where an archive follows;
    `plain`: the archive is somebody's own, and its names have no beginning of ours."""

    place: dict[str, Any]
    target: str
    several: bool = False
    owner: tuple[int, int] | None = None
    mode: int | None = None
    files: str = ""
    plain: bool = False
    strict: bool = False


class Content:
    """A file of a context where a reader of archives is expected."""

    def __init__(self, folder: int, digest: str) -> None:
        self._folder = folder
        self._digest = digest

    def data(self) -> Iterator[bytes]:
        name = self._digest.partition(":")[2]
        descriptor = os.open(f"{name[:2]}/{name[2:]}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._folder)
        try:
            while piece := os.read(descriptor, _CHUNK):
                yield piece
        finally:
            os.close(descriptor)


class Placing(Target):
    """Unlike a layer it hides nothing, and never puts a file in the place of a folder, or the other way round."""

    def __init__(self, order: Order) -> None:
        super().__init__()
        self._order = order
        self._base = posixpath.normpath(b"/" + os.fsencode(order.target.lstrip("/")))
        self._into = order.several or order.target.endswith("/")

    def put(self, entry: Entry, reader: Any) -> None:
        """One entry, under the name that it gets here."""
        if entry.kind == tar.HARDLINK:
            entry.link = self._called(entry.link)
        entry.name = self._called(entry.name)
        if self._order.owner is not None:
            entry.uid, entry.gid = self._order.owner
        if self._order.mode is not None and entry.kind != tar.SYMLINK:
            entry.mode = self._order.mode
        folder = entry.kind == tar.DIRECTORY
        if folder and entry.name == b"/":
            return
        if os.path.lexists(entry.name) and is_folder(entry.name) != folder:
            kinds = ("non-directory", "directory") if folder else ("directory", "non-directory")
            raise Refused(f"cannot copy to {kinds[0]} {show(entry.name)}: what comes is a {kinds[1]}")
        self._parents(posixpath.dirname(entry.name))
        self._make(entry, entry.name, reader)
        self._made.add(entry.name)

    def folder(self) -> None:
        """The destination itself, as a folder."""
        if os.path.exists(self._base) and not os.path.isdir(self._base):
            raise Refused(f"cannot copy to non-directory {show(self._base)}: what comes is a directory")
        self._parents(self._base)

    def _called(self, name: bytes) -> bytes:
        if self._order.plain:
            return clean(self._base + b"/" + clean(name))
        kind, _, rest = name.partition(b"/")
        if kind == b"f" and not self._into and not os.path.isdir(self._base):
            return self._base
        return clean(self._base + b"/" + rest)

    def _parents(self, path: bytes) -> None:
        missing, here = [], path
        while not os.path.lexists(here):
            missing.append(here)
            here = posixpath.dirname(here)
        super()._parents(path)
        if self._order.owner is not None:
            for each in missing:
                os.chown(each, *self._order.owner)


def listed(folder: int) -> Iterator[tuple[Entry, Content]]:
    """The entries in the lines of standard input."""
    for line in sys.stdin.buffer:
        name, mode, size, mtime_ns, digest, link = json.loads(line)
        kind = {stat.S_IFDIR: tar.DIRECTORY, stat.S_IFLNK: tar.SYMLINK}.get(stat.S_IFMT(mode), tar.REGULAR)
        entry = Entry(os.fsencode(name), kind, stat.S_IMODE(mode), 0, 0, size, mtime_ns, os.fsencode(link))
        yield entry, Content(folder, digest)


def run(order: Order, folder: int) -> None:
    placing = Placing(order)
    if order.several or order.plain:
        placing.folder()
    reader = tar.Reader(sys.stdin.buffer.read, strict=order.strict)
    found: Iterator[tuple[Entry, Any]]
    found = listed(folder) if order.files else ((entry, reader) for entry in reader)
    for entry, source in found:
        if entry.name == b"d":
            placing.folder()
            continue
        try:
            placing.put(entry, source)
        except OSError as error:
            error.filename = entry.name
            raise
    placing.finish()
    while sys.stdin.buffer.read(_CHUNK):
        pass


def main() -> None:
    syscalls.call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    os.umask(0o022)
    fields = json.loads(sys.stdin.buffer.readline())
    order = Order(**{**fields, "owner": tuple(fields["owner"]) if fields["owner"] else None})
    said: dict[str, Any] = {}
    try:
        folder = os.open(order.files, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if order.files else -1
        enter(order.place)
        run(order, folder)
    except (Refused, CorruptArchive) as error:
        said = {"error": str(error), "errno": 0, "refused": True}
    except OSError as error:
        what = f"{show(error.filename)}: " if isinstance(error.filename, bytes) else ""
        said = {"error": what + (error.strerror or str(error)), "errno": error.errno or 0, "refused": False}
    if said:
        sys.stdout.write(json.dumps(said))
        sys.stdout.flush()
    os._exit(1 if said else 0)
