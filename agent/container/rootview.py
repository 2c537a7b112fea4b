"""RootView: a container's root, read from its overlay layers without mounting them.

For what is needed before the root exists: users by name, the content that seeds a volume. It follows overlayfs
(whiteouts, opaque folders; https://docs.kernel.org/filesystems/overlayfs.html) and trusts no name: each component
is opened relative to its folder without following symlinks, links are resolved inside the root, and only regular
files are ever opened for reading. It sees layers, not what volumes and binds put over them.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

_MAX_LINKS = 40
_OPAQUE = "trusted.overlay.opaque"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Folder:
    """One merged folder: open descriptors of it in every layer that shows through, top first. Close it."""

    def __init__(self, descriptors: list[int]) -> None:
        self.descriptors = descriptors

    def __enter__(self) -> Folder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        while self.descriptors:
            os.close(self.descriptors.pop())

    def duplicate(self) -> Folder:
        return Folder([os.dup(each) for each in self.descriptors])

    def stat(self) -> os.stat_result:
        return os.fstat(self.descriptors[0])

    def names(self) -> list[str]:
        """What a listing inside the container shows, sorted."""
        seen: dict[str, bool] = {}
        for each in self.descriptors:
            with os.scandir(each) as entries:
                for entry in entries:
                    if entry.name not in seen:
                        seen[entry.name] = not is_whiteout(entry.stat(follow_symlinks=False))
        return sorted(name for name, there in seen.items() if there)

    def look_up(self, name: str) -> tuple[int, os.stat_result] | None:
        """The descriptor of the layer folder that provides `name`, and what it is there."""
        for each in self.descriptors:
            try:
                about = os.stat(name, dir_fd=each, follow_symlinks=False)
            except (FileNotFoundError, NotADirectoryError):
                continue
            return None if is_whiteout(about) else (each, about)
        return None

    def folder(self, name: str) -> Folder | None:
        """The merged subfolder, or None where `name` is absent or something else."""
        found: list[int] = []
        for each in self.descriptors:
            try:
                child = os.open(name, _FOLDER, dir_fd=each)
            except FileNotFoundError:
                continue
            except OSError:  # a file, a link or a whiteout: it hides what is below
                break
            found.append(child)
            if is_opaque(child):
                break
        return Folder(found) if found else None


class RootView:
    """`layers` are overlay layer folders, top first; they are opened once and closed with the view."""

    def __init__(self, layers: Sequence[str]) -> None:
        self._root = Folder([])
        try:
            for layer in layers:
                self._root.descriptors.append(os.open(layer, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        except OSError:
            self._root.close()
            raise

    def __enter__(self) -> RootView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._root.close()

    def read(self, path: str, *, limit: int = 4 << 20) -> bytes | None:
        """Up to `limit` bytes of a regular file, or None where there is none."""
        with contextlib.ExitStack() as stack:
            found = self._walk(path, stack)
            if found is None or isinstance(found, Folder):
                return None
            parent, name = found
            return _read(parent, name, limit)

    def exists(self, path: str) -> bool:
        """Whether there is anything at `path`, links followed."""
        with contextlib.ExitStack() as stack:
            return self._walk(path, stack) is not None

    @contextlib.contextmanager
    def folder(self, path: str) -> Iterator[Folder | None]:
        """The merged folder at `path`, links followed, for as long as the block runs."""
        with contextlib.ExitStack() as stack:
            found = self._walk(path, stack)
            yield found if isinstance(found, Folder) else None

    def _walk(self, path: str, stack: contextlib.ExitStack) -> Folder | tuple[int, str] | None:
        """A folder, or (layer folder, name) of what is not one; None if absent."""
        trail = [self._root]
        todo = _components(path)
        links = 0
        while todo:
            name = todo.pop()
            if name == "..":
                if len(trail) > 1:
                    trail.pop()
                continue
            found = trail[-1].look_up(name)
            if found is None:
                return None
            parent, about = found
            if stat.S_ISLNK(about.st_mode):
                links += 1
                if links > _MAX_LINKS:
                    return None
                target = os.readlink(name, dir_fd=parent)
                if target.startswith("/"):
                    trail = trail[:1]
                todo += _components(target)
                continue
            below = trail[-1].folder(name)
            if below is None:
                return None if todo else (parent, name)
            stack.enter_context(below)
            trail.append(below)
        return trail[-1]


def _components(path: str) -> list[str]:
    """Last first, so that the next one is popped off the end."""
    return [each for each in reversed(path.split("/")) if each not in ("", ".")]


def is_whiteout(about: os.stat_result) -> bool:
    """Overlayfs' sign for what is deleted."""
    return stat.S_ISCHR(about.st_mode) and about.st_rdev == 0


def is_opaque(descriptor: int) -> bool:
    """Whether a layer's folder hides those below it."""
    try:
        return os.getxattr(descriptor, _OPAQUE) == b"y"
    except OSError:
        return False


def _read(parent: int, name: str, limit: int) -> bytes | None:
    """By way of an O_PATH descriptor: what is opened for reading is what was seen to be a regular file, since
    opening a device or a FIFO that a container has put there instead has effects."""
    try:
        place = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(place).st_mode):
            return None
        with Path(f"/proc/self/fd/{place}").open("rb") as file:
            return file.read(limit)
    finally:
        os.close(place)
