"""The program that takes files out of an image or another stage, run as a child that is locked inside it.

It mounts the layers, read-only, in a mount namespace of its own, changes its root into them, forgets how to import, and
only then looks at a path. `transfer` is the parent, `placer` takes what comes out.

Argument: one JSON object (`Wish`). Output: an archive with names as `placer` wants them, or for a digest its 64 digits.
What goes wrong is one JSON object on standard error, {"error", "errno", "missing"}. Standard library and siblings only.
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import re
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

from agent.build.naming import called
from agent.image.unpack import mount_overlay
from agent.kernel import syscalls
from shoal import pattern as patterns
from shoal import tarball
from shoal.errors import ShoalError

_PR_SET_PDEATHSIG = 1


class Wish(NamedTuple):
    """`layers`: top first; a single one is taken as it is. `digest`: of what the archive would be, times aside;
    `bare`: the archive is for somebody else, and holds everything under its own name."""

    layers: tuple[str, ...]
    mount: str
    sources: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    parents: bool = False
    digest: bool = False
    bare: bool = False


class Missing(Exception):
    """No such source."""


def enter(wish: Wish) -> None:
    """Lock this process into the layers. From here on nothing of the host can be opened."""
    root = wish.layers[0]
    if len(wish.layers) > 1:
        syscalls.call("unshare", syscalls.CLONE_NEWNS)
        syscalls.call("mount", b"none", b"/", None, syscalls.MS_REC | syscalls.MS_PRIVATE, None)
        # By descriptor: the names of a hundred layers would not fit the page that mount(2) takes for its options.
        opened = [os.open(each, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for each in wish.layers]
        lower = ":".join(f"/proc/self/fd/{each}" for each in opened)
        mount_overlay(wish.mount, f"lowerdir={lower},index=off,metacopy=off,redirect_dir=off,xino=off")
        root = wish.mount
    os.chroot(root)
    os.chdir("/")
    sys.path[:] = []
    sys.meta_path[:] = []
    sys.path_hooks[:] = []


def gather(wish: Wish) -> Iterator[bytes]:
    packer = tarball.Packer()
    if wish.bare:
        yield from packer.tree("/", "")
        yield tarball.END
        return
    hidden = patterns.Matcher(wish.exclude)
    about = _timeless if wish.digest else os.lstat
    for source in wish.sources:
        found = list(matching(source))
        if not found:
            raise Missing(source)
        for path in found:
            yield from _source(packer, path, hidden, about, name=called(path, source, parents=wish.parents))
    yield tarball.END


def matching(source: str) -> Iterator[str]:
    """The paths that a source means, links in between followed inside the root."""
    clean = posixpath.normpath("/" + source.lstrip("/"))
    if not patterns.is_pattern(clean):
        if os.path.lexists(clean):
            yield clean
        return
    here = ["/"]
    for part in clean.strip("/").split("/"):
        fits = re.compile(patterns.segment_regex(part), re.DOTALL).fullmatch
        here = [posixpath.join(each, name) for each in here for name in _names(each) if fits(name)]
    yield from here


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 - strings all around
    except (NotADirectoryError, FileNotFoundError):
        return []


def _source(
    packer: tarball.Packer,
    path: str,
    hidden: patterns.Matcher,
    about: Callable[[str], os.stat_result],
    *,
    name: str | None,
) -> Iterator[bytes]:
    """A file under its own name, of a folder all that is in it, or either under `name`; a link is followed."""
    real = posixpath.realpath(path)
    if not stat.S_ISDIR(about(real).st_mode):
        under = f"f/{posixpath.basename(path)}" if name is None else f"d/{name}"
        if not hidden.matches(_copied(under)):
            yield from packer.entry(real, under, about(real))
        return
    yield from packer.entry("/", "d", about("/"))
    prefix = f"d/{name}" if name else "d"
    if prefix != "d":
        yield from packer.entry(real, prefix, about(real))
    waiting = [(real, prefix)]
    while waiting:
        here, under = waiting.pop()
        for child in _names(here):
            below = posixpath.join(here, child)
            kind = about(below)
            called_here = f"{under}/{child}"
            if not hidden.matches(_copied(called_here)):
                yield from packer.entry(below, called_here, kind)
            elif not hidden.brings_back:
                continue
            if stat.S_ISDIR(kind.st_mode):
                waiting.append((below, called_here))


def _copied(name: str) -> str:
    """The path in what is copied, by which something is excluded, of a name in the archive."""
    return name.partition("/")[2]


def _timeless(path: str) -> os.stat_result:
    """What is at a path as if it had been there since the epoch. Devices, whose numbers would get lost, keep their
    time."""
    found = os.lstat(path)
    if stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode):
        return found
    return os.stat_result((*tuple(found)[:7], 0, 0, 0))


def main() -> None:
    syscalls.call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    fields = json.loads(sys.argv[1])
    for name in ("layers", "sources", "exclude"):
        fields[name] = tuple(fields[name])
    wish = Wish(**fields)
    said: dict[str, object] = {}
    try:
        enter(wish)
        digest = hashlib.sha256()
        for piece in gather(wish):
            if wish.digest:
                digest.update(piece)
            else:
                sys.stdout.buffer.write(piece)
        if wish.digest:
            sys.stdout.write(digest.hexdigest())
        sys.stdout.flush()
    except Missing as error:
        said = {"error": str(error), "errno": 0, "missing": True}
    except ShoalError as error:
        said = {"error": str(error), "errno": 0, "missing": False}
    except BrokenPipeError:
        os._exit(1)
    except OSError as error:
        said = {"error": f"{error.filename}: {error.strerror}", "errno": error.errno or 0, "missing": False}
    if said:
        sys.stderr.write(json.dumps(said))
        sys.stderr.flush()
    os._exit(1 if said else 0)
