"""The program that carries files in and out of a container's root, run as a child that is locked inside that root.

A running container's root is entered as it is, mounts and all; that of one that does not run is put together here, in
a mount namespace of this program's own. Then it changes its root into it, forgets how to import, and only then looks
at a path: every link of a hostile image, and of processes that swap files meanwhile, resolves inside the container.
Nothing of the container is executed. `agent.container.carriage` is the parent.

Argument: one JSON object, `Errand` says what is in it. Output: for "stat" one JSON object, for "read" a tar, for
"layer" a gzipped one, for "write", which reads a tar from its standard input, nothing. What goes wrong is one JSON
object on standard error, {"error", "kind", "errno"}, with exit code 1. Standard library and siblings only,
single-threaded, needs root.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import posixpath
import signal
import stat
import struct
import sys
import zlib
from typing import Any, NamedTuple

from agent.image import tar
from agent.image.pack import layer
from agent.image.tar import CorruptArchive, Entry
from agent.image.unpack import Refused, Target, clean, is_folder, show
from agent.kernel import syscalls
from shoal import tarball

_PR_SET_PDEATHSIG = 1
_RESOLVE_BENEATH, _RESOLVE_IN_ROOT = 0x08, 0x10


class Errand(NamedTuple):
    """`task` is stat, read, write or layer. The root is that of the process `pid`, whose cgroup must name
    `container`, seen with its own ids where `own_ids`; or `layers` (top first), below the writable `upper` for a task
    that writes, with `mounts` on it (source, the path beneath it or "", target, read-only). For "layer" it is `upper`
    alone. `name` is what the entries of a tar begin with."""

    task: str
    container: str
    path: str = "/"
    name: str = ""
    keep_owner: bool = False
    pid: int = 0
    own_ids: bool = False
    layers: tuple[str, ...] = ()
    upper: str = ""
    work: str = ""
    mount_point: str = ""
    mounts: tuple[tuple[str, str, str, bool], ...] = ()
    read_only: bool = False


class Missing(Exception):
    """The path is not there."""


class Copy(Target):
    """Applies the entries of an archive below a folder. Unlike a layer it hides nothing, and it never puts a file in
    the place of a folder, or the other way round."""

    def __init__(self, base: bytes, *, keep_owner: bool) -> None:
        super().__init__()
        self._base = base
        self._keep_owner = keep_owner

    def apply(self, entry: Entry, reader: tar.Reader) -> None:
        entry.name = self._below(entry.name)
        entry.link = self._below(entry.link) if entry.kind == tar.HARDLINK else entry.link
        if not self._keep_owner:
            entry.uid = entry.gid = 0
        folder = entry.kind == tar.DIRECTORY
        if folder and entry.name == self._base:
            return  # it is there, and stays as it is
        if os.path.lexists(entry.name) and is_folder(entry.name) != folder:
            kinds = ("non-directory", "directory") if folder else ("directory", "non-directory")
            raise Refused(f"cannot overwrite {kinds[0]} {show(entry.name)} with {kinds[1]}")
        self._parents(posixpath.dirname(entry.name))
        self._make(entry, entry.name, reader)

    def _below(self, name: bytes) -> bytes:
        return posixpath.normpath(self._base + b"/" + clean(name))


def enter(errand: Errand) -> None:
    """Lock this process into the container's root. From here on nothing of the host can be opened."""
    if errand.pid:
        _join(errand)
    elif errand.task == "layer":
        os.chroot(errand.upper)
    else:
        _assemble(errand)
    os.chdir("/")
    sys.path[:] = []
    sys.meta_path[:] = []
    sys.path_hooks[:] = []


def _join(errand: Errand) -> None:
    namespace = os.open(f"/proc/{errand.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    root = os.open(f"/proc/{errand.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    with open(f"/proc/{errand.pid}/cgroup", encoding="ascii") as file:  # noqa: PTH123 - strings all around
        if errand.container not in file.read():  # the pid is somebody else's by now
            raise Missing(f"container {errand.container} is not running")
    user = os.open(f"/proc/{errand.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC) if errand.own_ids else -1
    syscalls.setns(namespace, syscalls.CLONE_NEWNS)
    os.fchdir(root)
    os.chroot(".")
    if user >= 0:
        syscalls.setns(user, syscalls.CLONE_NEWUSER)
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        os.close(user)
    os.close(namespace)
    os.close(root)


def _assemble(errand: Errand) -> None:
    syscalls.call("unshare", syscalls.CLONE_NEWNS)
    syscalls.call("mount", b"none", b"/", None, syscalls.MS_REC | syscalls.MS_PRIVATE, None)
    # By descriptor: the names of a hundred layers would not fit the page that mount(2) takes for its options.
    opened = [os.open(each, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for each in errand.layers]
    lower = ":".join(f"/proc/self/fd/{each}" for each in opened)
    options = f"lowerdir={lower},index=off,metacopy=off,redirect_dir=off,xino=off"
    if errand.task == "write":
        options += f",upperdir={errand.upper},workdir={errand.work}"
    mount_point = errand.mount_point.encode()
    flags = syscalls.MS_RDONLY if errand.read_only else 0
    syscalls.call("mount", b"overlay", mount_point, b"overlay", flags, options.encode())
    for each in opened:
        os.close(each)
    root = os.open(errand.mount_point, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for source, beneath, target, read_only in errand.mounts:
        top = os.open(source, os.O_PATH | os.O_CLOEXEC)
        place = _open(top, beneath, _RESOLVE_BENEATH) if beneath else top
        _bind(root, f"/proc/self/fd/{place}", target, read_only=read_only)
        for each in {top, place}:
            os.close(each)
    os.close(root)
    os.chroot(errand.mount_point)


def _bind(root: int, source: str, target: str, *, read_only: bool) -> None:
    """A mount point that is not there yet was never used: what is mounted on it is not either."""
    try:
        place = _open(root, target, _RESOLVE_IN_ROOT)
    except OSError:
        return
    where = f"/proc/self/fd/{place}".encode()
    try:
        syscalls.call("mount", source.encode(), where, None, syscalls.MS_BIND | syscalls.MS_REC, None)
    finally:
        os.close(place)
    if read_only:
        flags = syscalls.MS_BIND | syscalls.MS_REMOUNT | syscalls.MS_RDONLY
        again = _open(root, target, _RESOLVE_IN_ROOT)
        try:
            syscalls.call("mount", None, f"/proc/self/fd/{again}".encode(), None, flags, None)
        finally:
            os.close(again)


def _open(folder: int, path: str, resolve: int) -> int:
    how = struct.pack("QQQ", os.O_PATH | os.O_CLOEXEC, 0, resolve)
    return syscalls.call("openat2", folder, path.encode(), how, len(how))


def run(errand: Errand) -> None:
    match errand.task:
        case "stat":
            _write(json.dumps(describe(errand.path)).encode())
        case "read":
            for piece in tarball.Packer().tree(_there(errand.path), errand.name):
                _write(piece)
            _write(tarball.END)
        case "layer":
            packed = zlib.compressobj(1, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
            for piece in itertools.chain(layer(), (tarball.END,)):
                _write(packed.compress(piece))
            _write(packed.flush())
        case "write":
            receive(errand)


def describe(path: str) -> dict[str, Any]:
    """What is at `path`, links not followed, and for a link where it leads in the end."""
    about = os.lstat(_there(path))
    link = posixpath.realpath(path) if stat.S_ISLNK(about.st_mode) else ""
    return {
        "name": posixpath.basename(posixpath.normpath(path)),
        "mode": about.st_mode,
        "size": about.st_size,
        "mtime_ns": about.st_mtime_ns,
        "link": link,
    }


def _there(path: str) -> str:
    """`path` as it is to be opened: with a slash at its end a link is followed."""
    path = posixpath.realpath(path) if path.endswith(("/", "/.")) else path
    if not os.path.lexists(path):
        raise Missing(path)
    return path


def receive(errand: Errand) -> None:
    """Take the archive on standard input apart below the folder `path`."""
    base = posixpath.realpath(errand.path.encode())
    if not os.path.lexists(base):
        raise Missing(errand.path)
    if not is_folder(base):
        raise Refused(f"{show(base)} is not a directory")
    copy = Copy(base, keep_owner=errand.keep_owner)
    reader = tar.Reader(sys.stdin.buffer.read)
    for entry in reader:
        try:
            copy.apply(entry, reader)
        except OSError as error:
            error.filename = entry.name
            raise
    copy.finish()
    while sys.stdin.buffer.read(1 << 18):
        pass


def _write(data: bytes) -> None:
    sys.stdout.buffer.write(data)


def main() -> None:
    syscalls.call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    os.umask(0o022)
    fields = json.loads(sys.argv[1])
    errand = Errand(**{**fields, "mounts": tuple(map(tuple, fields.get("mounts", ())))})
    said: dict[str, Any] = {}
    try:
        enter(errand)
        run(errand)
        sys.stdout.buffer.flush()
    except Missing as error:
        said = {"error": str(error), "kind": "missing", "errno": 0}
    except (Refused, CorruptArchive) as error:
        said = {"error": str(error), "kind": "refused", "errno": 0}
    except BrokenPipeError:
        os._exit(1)
    except OSError as error:
        what = f"{show(error.filename)}: " if isinstance(error.filename, bytes) else ""
        said = {"error": what + (error.strerror or str(error)), "kind": "failed", "errno": error.errno or 0}
    if said:
        with contextlib.suppress(BrokenPipeError):
            sys.stderr.write(json.dumps(said))
            sys.stderr.flush()
    os._exit(1 if said else 0)
