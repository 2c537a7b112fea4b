"""Prune: which containers go when somebody tidies up, and what that frees. Which is pure; how much asks the disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from agent.container.filter import has_label
from shoal.errors import InvalidArgument
from shoal.model.container import Container

_FILTERS = ("label", "label!", "until")


def prunable(containers: Iterable[Container], filters: Sequence[tuple[str, str]]) -> list[Container]:
    """Those of the ended ones given that all filters name: `label`, `label!`, `until` in seconds since the epoch.

    Raises InvalidArgument for a filter that is not one.
    """
    named = chooser(filters)
    return [each for each in containers if not each.task_id and named(each.spec.labels, each.meta.created_at_ns)]


def chooser(filters: Sequence[tuple[str, str]]) -> Callable[[Mapping[str, str], int], bool]:
    """Whether all filters name a thing with these labels, created then. Raises InvalidArgument as above."""
    before_ns = 1 << 63
    for key, value in filters:
        if key not in _FILTERS:
            raise InvalidArgument(f"invalid filter '{key}'", hint=f"there are: {', '.join(_FILTERS)}")
        if key == "until":
            before_ns = min(before_ns, _moment(value))
    labels = [(value, key == "label") for key, value in filters if key != "until"]
    return lambda held, created_at_ns: (
        created_at_ns < before_ns and all(has_label(held, value) == wanted for value, wanted in labels)
    )


def disk_bytes(folder: Path) -> int:
    """What the files below `folder` take of the disk."""
    return sum(each.st_blocks * 512 for each in _files(folder))


def file_bytes(folder: Path) -> int:
    """How long the files below `folder` are, one with several names counted once."""
    return sum({(each.st_dev, each.st_ino): each.st_size for each in _files(folder)}.values())


def _files(folder: Path) -> Iterator[os.stat_result]:
    """Links are followed nowhere; a folder that goes meanwhile has none."""
    waiting = [str(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        yield entry.stat(follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            continue


def _moment(text: str) -> int:
    seconds, _, fraction = text.partition(".")
    if not seconds.isdecimal() or (fraction and not fraction.isdecimal()):
        raise InvalidArgument(f"invalid value '{text}' for filter 'until'", hint="give seconds since the epoch")
    return int(seconds) * 10**9 + int(fraction[:9].ljust(9, "0"))
