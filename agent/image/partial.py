"""Partials: what transfers that ended early brought, under the digest that it is to become. The next transfer of the
same blob goes on from there, also that of the next agent: whoever is killed leaves it. Nobody reads it as content; it
is verified as a whole once it is complete.

A blob that is complete has a second name here (link(2)) until all that it was brought for is here as well. Everything
is kept for an hour, and goes at once when the disk is full.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from shoal.digest import check

KEPT_S = 3600.0


class Partials:
    """The files in `folder`. `busy` says of a digest whether it is being transferred just now. All of it blocks."""

    def __init__(self, folder: Path, *, busy: Callable[[str], bool]) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._busy = busy

    def path(self, digest: str) -> Path:
        """Where a transfer of this blob goes on, or begins."""
        return self._folder / check(digest).partition(":")[2]

    def arrived(self, digest: str, blob: Path) -> None:
        """The blob is complete; should it be thrown away before it is `settled`, it is here still."""
        with contextlib.suppress(FileExistsError):
            self.path(digest).hardlink_to(blob)

    def settled(self, digests: Iterable[str]) -> None:
        """What these were brought for is here."""
        for digest in digests:
            self.path(digest).unlink(missing_ok=True)

    def make_room(self) -> None:
        """The disk is full: nothing is kept."""
        self._remove(lambda _: True)

    def sweep(self) -> None:
        """Remove what is too old."""
        self._remove(lambda age_s: age_s > KEPT_S)

    def _remove(self, goes: Callable[[float], bool]) -> None:
        for path in self._folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if not self._busy(f"sha256:{path.name}") and goes(time.time() - path.stat().st_mtime):
                    path.unlink()
