"""What a container has written, wherever its log driver put it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

from agent.container import journal, logs
from agent.container.held import Held
from agent.container.isolation import JOURNAL_LOG
from agent.container.logs import LogLine, Window
from shoal.clock import Clock
from shoal.errors import Unsupported


def logged(held: Held, window: Window, *, clock: Clock, follow: bool) -> AsyncIterator[list[LogLine]]:
    """In batches, oldest first; with `follow` until the container ends. Raises Unsupported where nothing is kept."""
    container = held.record.container

    def following() -> bool:
        return follow and held.busy and not held.gone

    if container.log_path:
        return logs.batches(Path(container.log_path), window, clock=clock, following=following)
    if container.spec.log.driver == JOURNAL_LOG:
        return journal.batches(held.id, window, clock=clock, following=following)
    raise Unsupported("configured logging driver does not support reading", hint="it was made with --log-driver none")
