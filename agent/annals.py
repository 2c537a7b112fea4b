"""Annals: the last events of the chronicle in a file, so that an agent that starts again knows what was.

A line of JSON each, added without a sync: the file lies in the run directory and begins anew with the host. A line
that a crash tore is left out. Where the file cannot be written, events are told all the same.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Collection
from pathlib import Path

import msgspec

from shoal.files import read_optional, write_atomic
from shoal.model.event import Event

log = logging.getLogger(__name__)

_WRITE = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC


class Annals:
    """The last `kept` events in `path`, and up to as many before them."""

    def __init__(self, path: Path, kept: int) -> None:
        self._path = path
        self._kept = kept
        self._lines = 0
        self._descriptor = -1
        self._failing = False

    def load(self) -> list[Event]:
        """What there is, oldest first; from then on `add` writes behind it."""
        found: list[Event] = []
        try:
            for line in (read_optional(self._path) or b"").splitlines():
                with contextlib.suppress(msgspec.MsgspecError):
                    found.append(msgspec.json.decode(line, type=Event))
            found = found[-self._kept :]
            self._begin(found)
        except OSError as error:
            self._failed(error)
        return found

    def add(self, event: Event, last: Collection[Event]) -> None:
        """Write `event` down; `last` are the last ones with it, for the file to begin anew with when it is long."""
        try:
            if self._descriptor < 0 or self._lines >= 2 * self._kept:
                self._begin(last)
                return
            os.write(self._descriptor, _line(event))
            self._lines += 1
        except OSError as error:
            self._failed(error)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _begin(self, events: Collection[Event]) -> None:
        self.close()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self._path, b"".join(map(_line, events)), durable=False)
        self._descriptor = os.open(self._path, _WRITE, 0o600)
        self._lines = len(events)
        self._failing = False

    def _failed(self, error: OSError) -> None:
        self.close()
        if not self._failing:
            log.warning("events are not written down: %s", error)
        self._failing = True


def _line(event: Event) -> bytes:
    return msgspec.json.encode(event) + b"\n"
