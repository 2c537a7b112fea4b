"""Logging: stdlib, to stderr, one line an event. Under systemd the level is a prefix that journald reads."""

from __future__ import annotations

import logging
import os
import sys

_PREFIX = {
    logging.DEBUG: "<7>",
    logging.INFO: "<6>",
    logging.WARNING: "<4>",
    logging.ERROR: "<3>",
    logging.CRITICAL: "<2>",
}


class Formatter(logging.Formatter):
    """`2026-01-02T03:04:05.678Z info agent.session connected manager=10.0.0.1:2377`; sd-daemon(3) under systemd."""

    def __init__(self, *, journal: bool) -> None:
        super().__init__("%(levelname)s %(name)s %(message)s")
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record).replace(record.levelname, record.levelname.lower(), 1)
        if self._journal:
            prefix = _PREFIX.get(record.levelno, "<6>")
            return prefix + text.replace("\n", "\n" + prefix)
        at = self.formatTime(record, "%Y-%m-%dT%H:%M:%S")
        return f"{at}.{int(record.msecs):03d} {text}"


def setup(level: str) -> None:
    """Send every logger's records at or above `level` to stderr. Raises ValueError for an unknown level."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Formatter(journal="JOURNAL_STREAM" in os.environ))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # gRPC's own chatter is about sockets that we report ourselves.
    logging.getLogger("grpc").setLevel(logging.ERROR)
    logging.getLogger("pyroute2").setLevel(logging.WARNING)
