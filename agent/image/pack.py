"""The program that packs one layer, run as a child that is locked inside the layer's folder: the way back of `unpack`.

An overlay's upper folder becomes the archive that stands for it elsewhere, whiteouts by name. Always in the same
order, so that the same files make the same bytes. Argument: one JSON object {"upper", "epoch": no file is younger than
that second, or null}. Output: the archive; on standard error one JSON object, {"size"} or {"error", "errno"}. Standard
library and siblings only, single-threaded, needs root.
"""

from __future__ import annotations

import contextlib
import json
import os
import posixpath
import signal
import stat
import sys
from collections.abc import Iterator

from agent.kernel import syscalls
from shoal import tarball

_PR_SET_PDEATHSIG = 1
_OPAQUE = "trusted.overlay.opaque"


def layer() -> Iterator[bytes]:
    """The current root, an overlay's upper folder, as an image's layer, without the mark of its end."""
    packer = tarball.Packer()
    for path, name, about in _everything():
        if stat.S_ISCHR(about.st_mode) and about.st_rdev == 0:
            folder, child = posixpath.split(name)
            yield tarball.marker(posixpath.join(folder, f".wh.{child}"))
            continue
        yield from packer.entry(path, name, about)
        if stat.S_ISDIR(about.st_mode) and _is_opaque(path):
            yield tarball.marker(posixpath.join(name, ".wh..wh..opq"))


def _everything() -> Iterator[tuple[str, str, os.stat_result]]:
    """(path, name in an archive, what it is) of all below the root, a folder before what is in it."""
    waiting = [("/", "")]
    while waiting:
        here, called = waiting.pop()
        below = []
        for child in sorted(os.listdir(here)):  # noqa: PTH208 - strings all around
            path, name = posixpath.join(here, child), posixpath.join(called, child)
            about = os.lstat(path)
            yield path, name, about
            if stat.S_ISDIR(about.st_mode):
                below.append((path, name))
        waiting += reversed(below)


def _is_opaque(path: str) -> bool:
    try:
        return os.getxattr(path, _OPAQUE) == b"y"
    except OSError:
        return False


def age(epoch: int) -> None:
    """Nothing below the root is younger than `epoch`; folders last, since their children change them."""
    found = [(path, about) for path, _, about in _everything() if about.st_mtime > epoch]
    for path, _ in reversed(found):
        os.utime(path, (epoch, epoch), follow_symlinks=False)


def size() -> int:
    """Bytes of the regular files."""
    return sum(about.st_size for _, _, about in _everything() if stat.S_ISREG(about.st_mode))


def main() -> None:
    syscalls.call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    wanted = json.loads(sys.argv[1])
    said: dict[str, object]
    try:
        os.chroot(wanted["upper"])
        os.chdir("/")
        if wanted["epoch"] is not None:
            age(wanted["epoch"])
        for piece in layer():
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.write(tarball.END)
        sys.stdout.buffer.flush()
        said = {"size": size()}
    except BrokenPipeError:
        os._exit(1)
    except OSError as error:
        said = {"error": f"{error.filename}: {error.strerror}", "errno": error.errno or 0}
    with contextlib.suppress(BrokenPipeError):
        sys.stderr.write(json.dumps(said))
        sys.stderr.flush()
    os._exit(1 if "error" in said else 0)
