"""Retention: the audit record grows, but not for ever. The leader trims it."""

from __future__ import annotations

import logging
from collections.abc import Callable

from manager.audit.ledger import TRIM, Ledger
from manager.store.view import View
from shoal.clock import Clock
from shoal.errors import ShoalError
from shoal.model.audit import AuditEntry

log = logging.getLogger(__name__)
LOOK_S = 600.0
# Whatever their age: the store is no place for a million lines.
KEEP = 100_000


async def keep_short(ledger: Ledger, view: View, clock: Clock, *, leads: Callable[[], bool]) -> None:
    """Trim what is older than the cluster keeps it, for as long as the manager lives."""
    line = AuditEntry(actor="manager", verb="audit trim", decision="allowed", outcome="done")
    while True:
        await clock.sleep(LOOK_S)
        if not leads() or view.cluster is None:
            continue
        before_ns = clock.now_ns() - view.cluster.spec.audit_retention_ns
        try:
            while await ledger.trim(keep=KEEP, before_ns=before_ns, line=line) == TRIM:
                pass
        except ShoalError as error:
            log.error("the audit record cannot be trimmed, trying again later: %s", error)
