"""Denials: refusals in the audit record, of which a flood must hurt nobody.

Of each caller's refusals of one kind the first is written soon, those that follow within the minute as one line that
says how many. More than so many kinds a minute are only counted.
"""

from __future__ import annotations

import logging
from collections import Counter

import msgspec

from manager.audit.ledger import Ledger
from shoal.clock import Clock
from shoal.errors import ShoalError
from shoal.model.audit import AuditEntry

log = logging.getLogger(__name__)
_LOOK_S = 1.0
_WINDOW_S = 60.0
KINDS = 30


class Denials:
    """`run` must run for anything to be written."""

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._fresh: list[AuditEntry] = []
        self._seen: dict[tuple[str, str, str], AuditEntry] = {}
        self._again: Counter[tuple[str, str, str]] = Counter()
        self._left_out = 0
        self._ends_at = 0.0

    def add(self, line: AuditEntry) -> None:
        """Take note of a refusal. Waits for nothing."""
        kind = (line.actor, line.source, line.verb)
        if kind in self._seen:
            self._again[kind] += 1
        elif len(self._seen) < KINDS:
            self._seen[kind] = line
            self._fresh.append(line)
        else:
            self._left_out += 1

    async def run(self) -> None:
        """Write what was noted, for as long as the manager lives."""
        self._ends_at = self._clock.monotonic() + _WINDOW_S
        failing = False
        while True:
            await self._clock.sleep(_LOOK_S)
            if self._clock.monotonic() >= self._ends_at:
                self._close()
            if not self._fresh:
                continue
            try:
                await self._ledger.note(*self._fresh[:KINDS])
                del self._fresh[:KINDS]
                failing = False
            except ShoalError as error:
                if not failing:
                    log.error("refusals cannot be recorded, trying on: %s", error)
                failing = True

    def _close(self) -> None:
        """The minute is over: what it only counted becomes lines, unless those of the last ones still wait."""
        if len(self._fresh) > KINDS:
            return
        self._fresh += [msgspec.structs.replace(self._seen[kind], count=count) for kind, count in self._again.items()]
        if self._left_out:
            self._fresh.append(AuditEntry(actor="others", decision="denied", count=self._left_out))
        self._seen.clear()
        self._again.clear()
        self._left_out = 0
        self._ends_at = self._clock.monotonic() + _WINDOW_S
