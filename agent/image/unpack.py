"""Unpacks one layer, in a child that is locked inside the layer's target.

It mounts the layers below with the new layer's directory on top (overlayfs) in a mount namespace of its own,
changes its root into that, forgets how to import, and only then reads the archive from its standard input. So
every path, symlink and hard link of a hostile archive resolves inside the image, and the kernel itself writes
whiteouts, opaque directories and copies of what lower layers share. `layer` is the parent: it decompresses,
verifies, counts, and throws the directory away unless this ends with success; `forker` is the program.

Standard library only, single-threaded, needs root. It imports as little as it can: most layers are unpacked in less
time than json and typing take to be imported.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
import sys

from agent.image import tar
from agent.image.tar import CorruptArchive, Entry
from agent.kernel import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, BinaryIO, NoReturn

MAX_ENTRIES = 2_000_000
_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
# Meta files of aufs, the layer format of old; docker skips them too.
_AUFS = b".wh..wh."
# What overlayfs reads as its own instructions (overlayfs.rst); an archive must not write them.
_FORBIDDEN_XATTRS = (b"trusted.overlay.", b"user.overlay.")
_MAX_ID = (1 << 32) - 2
_MAX_TIME_NS = 1 << 62
_PR_SET_PDEATHSIG = 1
_SIGKILL = 9
_READ_BYTES = 1 << 16


class Refused(Exception):
    """The archive holds something that no image may."""


class Target:
    """Applies entries below the current root. `size` counts the bytes of regular files."""

    def __init__(self) -> None:
        self.size = 0
        self.entries = 0
        # Paths that this layer made: its own whiteouts do not hide them.
        self._made: set[bytes] = {b"/"}
        self._folders: set[bytes] = {b"/"}
        # Directory times are set last, because making children changes them.
        self._times: dict[bytes, int] = {b"/": os.stat("/").st_mtime_ns}

    def apply(self, entry: Entry, reader: tar.Reader) -> None:
        self.entries += 1
        if self.entries > MAX_ENTRIES:
            raise Refused(f"more than {MAX_ENTRIES} entries")
        path = clean(entry.name)
        parent, name = posixpath.split(path)
        if path == b"/":
            if entry.kind != tar.DIRECTORY:
                raise Refused(f"{show(entry.name)} would replace the root directory")
        elif name.startswith(_WHITEOUT):
            self._whiteout(parent, name)
            return
        else:
            self._parents(parent)
        self._make(entry, path, reader)
        self._made.add(path)

    def finish(self) -> None:
        for path, mtime_ns in self._times.items():
            if is_folder(path):
                os.utime(path, ns=(mtime_ns, mtime_ns), follow_symlinks=False)

    def _make(self, entry: Entry, path: bytes, reader: tar.Reader) -> None:
        if entry.kind == tar.DIRECTORY:
            self._folder(entry, path)
        elif entry.kind == tar.REGULAR:
            self._file(entry, path, reader)
        elif entry.kind == tar.HARDLINK:
            self._link(entry, path)
        elif entry.kind == tar.SYMLINK:
            self._replacing(path, lambda: os.symlink(entry.link, path))
            self._dress(entry, path)
        else:
            self._node(entry, path)

    def _folder(self, entry: Entry, path: bytes) -> None:
        if path != b"/" and not is_folder(path):
            self._replacing(path, lambda: os.mkdir(path, 0o700))
        own(entry, path)
        os.chmod(path, entry.mode)
        set_xattrs(entry, path)
        self._folders.add(path)
        self._times[path] = clamp(entry.mtime_ns)

    def _file(self, entry: Entry, path: bytes, reader: tar.Reader) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = self._replacing(path, lambda: os.open(path, flags, 0o600))
        try:
            if entry.parts is None:
                for piece in reader.data():
                    write_all(descriptor, piece)
            else:
                write_parts(descriptor, entry, reader)
            self.size += entry.size
            # This order: chown(2) drops setuid bits and file capabilities.
            own(entry, descriptor)
            os.fchmod(descriptor, entry.mode)
            set_xattrs(entry, descriptor)
            os.utime(descriptor, ns=(clamp(entry.mtime_ns),) * 2)
        finally:
            os.close(descriptor)

    def _link(self, entry: Entry, path: bytes) -> None:
        source = clean(entry.link)
        if source == path:
            return
        try:
            self._replacing(path, lambda: os.link(source, path, follow_symlinks=False))
        except FileNotFoundError:
            raise Refused(f"{show(path)} is a hard link to {show(source)}, which is not in the image") from None
        except PermissionError:
            raise Refused(f"{show(path)} is a hard link to {show(source)}, which cannot be linked to") from None

    def _node(self, entry: Entry, path: bytes) -> None:
        kind = {tar.CHARACTER: stat.S_IFCHR, tar.BLOCKDEV: stat.S_IFBLK, tar.FIFO: stat.S_IFIFO}[entry.kind]
        if not (0 <= entry.major < 1 << 12 and 0 <= entry.minor < 1 << 20):
            raise Refused(f"{show(path)} is the impossible device {entry.major}:{entry.minor}")
        if kind == stat.S_IFCHR and entry.major == entry.minor == 0:
            raise Refused(f"{show(path)} is the device 0:0, by which overlayfs marks deleted files")
        device = os.makedev(entry.major, entry.minor)
        self._replacing(path, lambda: os.mknod(path, kind | 0o600, device))
        self._dress(entry, path)

    def _dress(self, entry: Entry, path: bytes) -> None:
        """Owner, mode, attributes and times of what is neither file nor directory."""
        own(entry, path)
        if entry.kind != tar.SYMLINK:
            os.chmod(path, entry.mode)
        set_xattrs(entry, path)
        os.utime(path, ns=(clamp(entry.mtime_ns),) * 2, follow_symlinks=False)

    def _replacing(self, path: bytes, make: Callable[[], Any]) -> Any:
        """`make()`; what stood at `path` before goes, of this layer or of a lower one."""
        try:
            return make()
        except FileExistsError:
            self._remove(path)
            return make()

    def _remove(self, path: bytes) -> None:
        if not is_folder(path):
            os.unlink(path)
            return
        remove_tree(path)
        below = path + b"/"
        for kept in (self._made, self._folders):
            kept.difference_update([each for each in kept if each == path or each.startswith(below)])
        for each in [each for each in self._times if each == path or each.startswith(below)]:
            del self._times[each]

    def _parents(self, path: bytes) -> None:
        """Make what is missing of a parent directory; a symlink on the way is followed, inside the image."""
        if path in self._folders:
            return
        try:
            found = os.stat(path)
        except FileNotFoundError:
            make_folders(posixpath.realpath(path))
            made = path
            while made not in self._made and made not in self._folders and len(made) > 1:
                self._made.add(made)
                made = posixpath.dirname(made)
            self._keep_time(made)
        except (NotADirectoryError, FileExistsError):
            raise Refused(f"{show(path)} is not a directory, and an entry lies in it") from None
        else:
            if not stat.S_ISDIR(found.st_mode):
                raise Refused(f"{show(path)} is not a directory, and an entry lies in it")
            self._keep_time(path)
        self._folders.add(path)

    def _keep_time(self, path: bytes) -> None:
        """A directory of a lower layer that only gets a new child keeps its time."""
        real = posixpath.realpath(path)
        if real not in self._times:
            self._times[real] = os.stat(real).st_mtime_ns

    def _whiteout(self, parent: bytes, name: bytes) -> None:
        """Hide what lower layers have; what this layer made itself stays, whatever the order of the entries."""
        if name != _OPAQUE and name.startswith(_AUFS):
            return
        hidden = name[len(_WHITEOUT) :]
        if hidden in (b"", b".", b".."):
            raise Refused(f"{show(parent + b'/' + name)} is no valid whiteout")
        if not is_folder(parent):
            return
        self._keep_time(parent)
        if name == _OPAQUE:
            for child in os.listdir(parent):
                self._hide(posixpath.join(parent, child))
        else:
            self._hide(posixpath.join(parent, hidden))

    def _hide(self, path: bytes) -> None:
        if path not in self._made:
            if os.path.lexists(path):
                self._remove(path)
        elif is_folder(path):
            for child in os.listdir(path):
                self._hide(posixpath.join(path, child))


def clean(name: bytes) -> bytes:
    """The absolute path inside the image. Raises Refused for one that leads out of it."""
    path = posixpath.normpath(b"./" + name.lstrip(b"/"))
    if path == b".." or path.startswith(b"../"):
        raise Refused(f"{show(name)} leads out of the image")
    return b"/" if path == b"." else b"/" + path


def show(name: bytes) -> str:
    """A name for an error message: short, and nothing in it that a terminal would obey."""
    text = name.decode(errors="backslashreplace")
    return repr(text if len(text) <= 100 else text[:100] + "…")


def is_folder(path: bytes) -> bool:
    """True for a directory itself, false for a symlink to one."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def make_folders(path: bytes) -> None:
    """What is missing of a directory and those above it, without recursion, as in `remove_tree`."""
    missing = []
    while not os.path.lexists(path):
        missing.append(path)
        path = posixpath.dirname(path)
    for each in reversed(missing):
        os.mkdir(each, 0o755)


def remove_tree(path: bytes) -> None:
    """Delete a directory with all in it, following nothing, without recursion (depth is the archive's choice)."""
    waiting, folders = [path], []
    while waiting:
        folder = waiting.pop()
        folders.append(folder)
        with os.scandir(folder) as children:
            for child in children:
                if child.is_dir(follow_symlinks=False):
                    waiting.append(child.path)
                else:
                    os.unlink(child.path)
    for folder in reversed(folders):
        os.rmdir(folder)


def own(entry: Entry, target: int | bytes) -> None:
    if not (0 <= entry.uid <= _MAX_ID and 0 <= entry.gid <= _MAX_ID):
        raise Refused(f"{show(entry.name)} belongs to the impossible user {entry.uid}:{entry.gid}")
    if isinstance(target, int):
        os.fchown(target, entry.uid, entry.gid)
    else:
        os.lchown(target, entry.uid, entry.gid)


def set_xattrs(entry: Entry, target: int | bytes) -> None:
    """Extended attributes; those that the filesystem or the kind of file cannot carry are left out, as docker
    does, except for file capabilities: without them a program fails much later, for no visible reason."""
    for key, value in entry.xattrs.items():
        if key.startswith(_FORBIDDEN_XATTRS):
            continue
        try:
            if isinstance(target, int):
                os.setxattr(target, key, value)
            else:
                os.setxattr(target, key, value, follow_symlinks=False)
        except OSError as error:
            if key == b"security.capability" or error.errno not in (errno.ENOTSUP, errno.EPERM, errno.EINVAL):
                raise


def write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def write_parts(descriptor: int, entry: Entry, reader: tar.Reader) -> None:
    """A sparse file: its data where it belongs, holes between."""
    stored = reader.data()
    held = b""
    for offset, length in entry.parts or ():
        os.lseek(descriptor, offset, os.SEEK_SET)
        while length:
            held = held or next(stored)
            piece, held = held[:length], held[length:]
            write_all(descriptor, piece)
            length -= len(piece)
    os.ftruncate(descriptor, entry.size)


def clamp(time_ns: int) -> int:
    return max(-_MAX_TIME_NS, min(_MAX_TIME_NS, time_ns))


def unpack(stream: BinaryIO, *, strict: bool) -> int:
    """Apply the archive to the current root; the size of its files."""
    target = Target()
    reader = tar.Reader(stream.read, strict=strict)
    for entry in reader:
        try:
            target.apply(entry, reader)
        except OSError as error:
            error.filename = entry.name
            raise
    target.finish()
    while stream.read(1 << 18):
        pass  # the padding behind the end mark is part of the layer's digest
    return target.size


def enter(wanted: dict[str, Any]) -> None:
    """Lock this process into the layer's target. From here on nothing of the host can be opened."""
    if wanted["lower"]:
        syscalls.call("unshare", syscalls.CLONE_NEWNS)
        syscalls.call("mount", b"none", b"/", None, syscalls.MS_REC | syscalls.MS_PRIVATE, None)
        # Relative names keep a hundred layers within the page that mount(2) takes for its options.
        os.chdir(wanted["layers"])
        options = f"lowerdir={':'.join(wanted['lower'])},upperdir={wanted['upper']},workdir={wanted['work']}"
        options += ",index=off,metacopy=off,redirect_dir=off,xino=off"
        try:
            # volatile: no sync of the whole disk when the mount goes; the parent syncs once, for all layers.
            mount_overlay(wanted["mount"], options + ",volatile")
        except OSError as error:
            if error.errno != errno.EINVAL:  # Linux before 5.10 does not know it
                raise
            mount_overlay(wanted["mount"], options)
        os.chroot(wanted["mount"])
    else:
        os.chroot(wanted["upper"])
    os.chdir("/")
    # An import from now on would run the image's code as root (CVE-2019-14271).
    sys.path[:] = []
    sys.meta_path[:] = []
    sys.path_hooks[:] = []


def mount_overlay(where: str, options: str) -> None:
    syscalls.call("mount", b"overlay", where.encode(), b"overlay", 0, options.encode())


def die_with_parent() -> None:
    """A fork does not inherit it (prctl(2))."""
    syscalls.call("prctl", _PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)


def run(wanted: dict[str, Any]) -> NoReturn:
    """Unpack standard input and end this process. `wanted`: {"upper", "work", "mount": paths; "layers": folder of the
    lower layers; "lower": their names in it, top first; "strict": bool}. Output: the size of the files, or
    "!ERRNO MESSAGE"."""
    try:
        enter(wanted)
        with open(0, "rb", buffering=_READ_BYTES, closefd=False) as stream:
            said = str(unpack(stream, strict=wanted["strict"]))
    except (Refused, CorruptArchive) as error:
        said = f"!0 {error}"
    except OSError as error:
        what = f"{show(error.filename)}: " if isinstance(error.filename, bytes) else ""
        said = f"!{error.errno or 0} {what}{error.strerror or error}"
    write_all(1, said.encode(errors="replace"))
    os._exit(1 if said.startswith("!") else 0)
