"""Session: one agent's stream, downwards: a welcome and the whole assignment first, then what changes about either."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from manager.dispatcher.assigner import Assigner
from manager.dispatcher.assignment import Assignment, Change, diff
from shoal.clock import Clock
from shoal.codec import to_wire
from shoal.errors import ShoalError
from shoal.model.assignment import AssignedTask, NetworkAssignment, Template
from shoal.model.network import Endpoint
from shoal.model.trust import Trust
from shoal.v1 import dispatcher_pb2 as wire
from shoal.v1 import types_pb2

# What changes within this time goes out together.
GATHER_S = 0.01
# Changes per message; a message of as many endpoints with a thousand backends each stays below gRPC's bound.
AT_MOST = 200

_WIRE: dict[type[Any], tuple[str, type[Any]]] = {
    Template: ("template", wire.Template),
    AssignedTask: ("task", wire.AssignedTask),
    NetworkAssignment: ("network", wire.NetworkAssignment),
    Endpoint: ("endpoint", types_pb2.Endpoint),
}


class AgentSession:
    """Of the agent of `node_id`. Whoever holds it wakes it when the node's assignment may be another, and has it greet
    when `welcome` may say something else."""

    def __init__(
        self,
        node_id: str,
        assigner: Assigner,
        clock: Clock,
        *,
        welcome: Callable[[], wire.Welcome],
        trust: Callable[[], Trust],
    ) -> None:
        self.node_id = node_id
        self.said_goodbye = False
        self._assigner = assigner
        self._welcome = welcome
        self._greeting = False
        self._clock = clock
        self._trust = trust
        self._sequence = 0
        self._woken = asyncio.Event()
        self._ended = False
        self._error: ShoalError | None = None

    def wake(self) -> None:
        """Compare what was sent with what is assigned, and whom to let in, now."""
        self._woken.set()

    def greet(self) -> None:
        """Say again what the agent was welcomed with, if that has changed."""
        self._greeting = True
        self._woken.set()

    def end(self, error: ShoalError | None = None) -> None:
        """Finish the stream, with `error` for its end; the first call counts."""
        if not self._ended:
            self._ended = True
            self._error = error
            self._woken.set()

    async def responses(self) -> AsyncIterator[wire.SessionResponse]:
        """What goes down, until `end`, whose error is raised."""
        trust, welcome = self._trust(), self._welcome()
        yield wire.SessionResponse(welcome=welcome)
        sent = self._assigner.of(self.node_id)
        whole = _parts(diff(Assignment(), sent)) or [[]]
        for number, changes in enumerate(whole, 1):
            yield self._message(changes, complete=number == 1, more=number < len(whole))
        while True:
            await self._woken.wait()
            if not self._ended:
                await self._clock.sleep(GATHER_S)
            self._woken.clear()
            if self._ended:
                if self._error is not None:
                    raise self._error
                return
            if self._greeting:
                self._greeting, before, welcome = False, welcome, self._welcome()
                if welcome != before:
                    yield wire.SessionResponse(welcome=welcome)
            now = self._assigner.of(self.node_id)
            changes = diff(sent, now)
            sent = now
            if self._trust() is not trust:
                trust = self._trust()
                yield wire.SessionResponse(trust=to_wire(trust, wire.Trust))
            for part in _parts(changes):
                yield self._message(part)

    def _message(
        self, changes: Sequence[Change], *, complete: bool = False, more: bool = False
    ) -> wire.SessionResponse:
        self._sequence += 1
        changed = map(_on_wire, changes)
        assignments = wire.Assignments(complete=complete, more=more, sequence=self._sequence, changes=changed)
        return wire.SessionResponse(assignments=assignments)


def _parts(changes: Sequence[Change]) -> list[Sequence[Change]]:
    return [changes[begin : begin + AT_MOST] for begin in range(0, len(changes), AT_MOST)]


def _on_wire(change: Change) -> wire.AssignmentChange:
    field, message = _WIRE[type(change.item)]
    item: dict[str, Any] = {field: to_wire(change.item, message)}
    return wire.AssignmentChange(remove=change.remove, **item)
