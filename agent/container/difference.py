"""Difference: what a container's own layer changes of its image, for `diff`.

The layer is read as overlayfs has it (whiteouts, opaque folders), by descriptors and without following a link, since
the container may be running.
"""

from __future__ import annotations

import enum
import os
import stat
from collections.abc import Iterator, Sequence

import msgspec

from agent.container.rootview import Folder, RootView, is_opaque, is_whiteout
from shoal.errors import InvalidArgument

_MAX_DEPTH = 128  # as in `seed`: each level holds descriptors open
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Kind(enum.IntEnum):
    MODIFIED = 1
    ADDED = 2
    DELETED = 3


class Change(msgspec.Struct, frozen=True):
    kind: Kind
    path: str


def difference(upper: str, lower: Sequence[str]) -> list[Change]:
    """Sorted by path. A folder in which something changed is modified too. Raises InvalidArgument for a layer that is
    nested too deep."""
    with RootView(lower) as view, view.folder("/") as below:
        top = os.open(upper, _FOLDER)
        try:
            return sorted(_changes(top, below, "", 0), key=lambda each: each.path)
        finally:
            os.close(top)


def _changes(here: int, below: Folder | None, path: str, depth: int) -> Iterator[Change]:
    if depth > _MAX_DEPTH:
        raise InvalidArgument(f"what the container wrote is nested deeper than {_MAX_DEPTH} folders")
    for name in os.listdir(here):
        try:
            about = os.stat(name, dir_fd=here, follow_symlinks=False)
        except FileNotFoundError:
            continue
        known = below.look_up(name) if below is not None else None
        if is_whiteout(about):
            if known is not None:
                yield Change(Kind.DELETED, f"{path}/{name}")
            continue
        yield Change(Kind.ADDED if known is None else Kind.MODIFIED, f"{path}/{name}")
        if stat.S_ISDIR(about.st_mode):
            yield from _below(here, below, name, path, depth)


def _below(here: int, below: Folder | None, name: str, path: str, depth: int) -> Iterator[Change]:
    try:
        child = os.open(name, _FOLDER, dir_fd=here)
    except OSError:  # it went meanwhile, or is no folder any more
        return
    lower = below.folder(name) if below is not None else None
    try:
        yield from _changes(child, lower, f"{path}/{name}", depth + 1)
        if lower is not None and is_opaque(child):
            for gone in set(lower.names()) - set(os.listdir(child)):  # noqa: PTH208 - a descriptor
                yield Change(Kind.DELETED, f"{path}/{name}/{gone}")
    finally:
        os.close(child)
        if lower is not None:
            lower.close()
