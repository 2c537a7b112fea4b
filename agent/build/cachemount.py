"""Cache mounts: the folders that RUN --mount=type=cache finds again in the next build.

    kept/<name>     what is kept
    used/<name>     where the command that used it last has it; its time says when that was
    fresh/<id>      on its way in or out; emptied by the next `CacheMounts`

Blocking, apart from `using`; one instance per folder, which many threads may call.
"""

from __future__ import annotations

import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from agent.container.prune import file_bytes
from agent.image import content
from shoal.ids import new_id


class CacheMount(msgspec.Struct, frozen=True):
    """`target`: where a command has it."""

    name: str
    target: str
    size_bytes: int
    used_at_ns: int


class CacheMounts:
    def __init__(self, folder: Path) -> None:
        self._kept, self._used, self._fresh = folder / "kept", folder / "used", folder / "fresh"
        for each in (self._kept, self._used, self._fresh):
            each.mkdir(parents=True, exist_ok=True, mode=0o700)
        content.empty_folder(self._fresh)
        self._lock = threading.Lock()
        self._users: Counter[str] = Counter()

    @contextmanager
    def using(self, name: str, target: str) -> Iterator[Path]:
        """Where the mount is, or is to be once `begin` has made it. Until the block ends it stays."""
        with self._lock:
            self._users[name] += 1
        try:
            self._mark(name, target)
            yield self._kept / name
        finally:
            self._mark(name, target)
            with self._lock:
                self._users[name] -= 1

    @contextmanager
    def begin(self, name: str) -> Iterator[Path]:
        """A folder to be filled, which is the mount when the block ends, unless somebody was faster."""
        fresh = self._fresh / new_id()
        fresh.mkdir(mode=0o755)
        try:
            yield fresh
            with self._lock:
                if not (self._kept / name).exists():
                    fresh.rename(self._kept / name)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)

    def measured(self) -> list[CacheMount]:
        """All that there are; a walk through what they keep."""
        found = []
        for each in self._kept.iterdir():
            used = self._used / each.name
            known = used.exists()
            found.append(
                CacheMount(
                    each.name,
                    used.read_text(errors="surrogateescape") if known else "",
                    file_bytes(each),
                    used.stat().st_mtime_ns if known else 0,
                )
            )
        return found

    def prune(self, *, before_ns: int) -> list[CacheMount]:
        """Forget what was last used before then and nobody uses now; what went."""
        gone = []
        for each in self.measured():
            out = self._fresh / new_id()
            with self._lock:
                if self._users[each.name] or each.used_at_ns >= before_ns:
                    continue
                (self._kept / each.name).rename(out)
                (self._used / each.name).unlink(missing_ok=True)
            shutil.rmtree(out)
            gone.append(each)
        return gone

    def _mark(self, name: str, target: str) -> None:
        (self._used / name).write_text(target, errors="surrogateescape")
