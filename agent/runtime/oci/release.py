"""`start`: the process of a created container goes through its gate."""

from __future__ import annotations

import os
import select
from typing import Any

from agent.runtime.cgroups.group import Groups
from agent.runtime.failure import Failure
from agent.runtime.oci import hooks, sealed
from agent.runtime.oci.record import CREATED, Place, Record, group_of, state, status
from agent.runtime.oci.report import Report
from agent.runtime.outcome import told, wrapped


def start(place: Place, report: Report) -> None:
    """Let the process of a created container go on to its command; returns when that has been exec'ed."""
    with place.locked():
        record, groups = place.load(), Groups()
        condition = status(place, record, groups)
        if condition != CREATED:
            raise Failure("Conflict", f"cannot start a container that is {condition}: {place.id}")
        config = place.config()
        _started(place, record, config)
        try:
            hooks.of(config, "poststart", lambda: state(record, status(place, record, groups)))
        except Failure as error:
            report.warning(error.message)


def _started(place: Place, record: Record, config: dict[str, Any]) -> None:
    try:
        if hooks.wanted(config, "startContainer"):
            sealed.seal()
            pidfd = os.pidfd_open(record.pid)
            try:
                hooks.of(config, "startContainer", lambda: state(record, CREATED), pidfd=pidfd)
            finally:
                os.close(pidfd)
        gate = os.open(place.gate, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.write(gate, b"g")
            poll = select.poll()
            poll.register(gate, 0)
            poll.poll()  # until nobody reads it any more: the process has exec'ed, or died
        finally:
            os.close(gate)
        failed = told(place.failure.read_bytes())
        if failed is not None:
            raise failed
    except (Failure, OSError) as error:
        group_of(record, Groups()).kill()
        raise wrapped(error) from error
