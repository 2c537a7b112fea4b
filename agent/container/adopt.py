"""Adopt: what the agent does when it starts: brings its records together with what the runtime really has.

The decision is pure (`plan`): one verdict per container. Carried out by `agent.container.containers` when it opens.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping

import msgspec

from agent.container import restart
from agent.container.record import Record, State
from agent.runtime.run import Exit, Started
from shoal.model.container import ContainerState

_ALIVE = (ContainerState.RUNNING, ContainerState.PAUSED)


class Verdict(enum.Enum):
    ADOPT = "adopt"  # it runs: wait for its end
    SETTLE = "settle"  # it ended while nobody looked: do what an exit does
    REVIVE = "revive"  # it is down with its host, and its policy wants it up
    END = "end"  # it is down with its host; how it ended nobody knows
    REMOVE = "remove"  # it was never finished, or goes when it ends
    LEAVE = "leave"  # nothing to do


class Plan(msgspec.Struct, frozen=True):
    """`verdicts` by container id; `orphans` are what the runtime has and no record mentions."""

    verdicts: dict[str, Verdict]
    orphans: tuple[str, ...]


def plan(
    loaded: Collection[tuple[Record, State]], known: Mapping[str, Started | Exit], *, boot_id: str, lost: int
) -> Plan:
    """`known` is what the runtime has; `lost` the exit code of a container whose end nobody saw."""
    verdicts = {
        record.container.meta.id: _verdict(record, state, known.get(record.container.meta.id), boot_id, lost)
        for record, state in loaded
    }
    return Plan(verdicts=verdicts, orphans=tuple(each for each in known if each not in verdicts))


def _verdict(record: Record, state: State, found: Started | Exit | None, boot_id: str, lost: int) -> Verdict:
    status = state.status
    if record.pending:
        return Verdict.REMOVE
    if isinstance(found, Started):
        return Verdict.ADOPT
    if status.state == ContainerState.RESTARTING or state.returning:  # decided already, and waiting
        return Verdict.REVIVE
    ran = status.state in _ALIVE
    if isinstance(found, Exit) and (ran or found.finished_at_ns > status.finished_at_ns):
        return Verdict.SETTLE
    if record.container.auto_remove and (ran or state.boot_id):
        return Verdict.REMOVE
    # Nothing that was never started starts now, and what ended by itself or by hand only after a boot.
    if state.boot_id and (ran or state.boot_id != boot_id):
        code = lost if ran else status.exit_code
        ended = restart.Ended(exit_code=code, stopped=state.stopped, attempts=state.attempts)
        if restart.after_loss(record.container.restart, ended):
            return Verdict.REVIVE
    return Verdict.END if ran else Verdict.LEAVE
