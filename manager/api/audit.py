"""Calls on the audit record: reading it, and having its chain verified."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any

import grpc.aio

from manager.api.room import Room
from manager.audit.chain import HEAD_KEY, PREFIX, RECORD, Faults, Point
from shoal import codec
from shoal.codec import to_wire
from shoal.errors import InvalidArgument
from shoal.model.audit import AuditEntry
from shoal.v1 import control_pb2 as wire
from shoal.v1 import types_pb2

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

_PART = 500
_MAX_FAULTS = 100


class AuditCalls:
    _room: Room

    async def ReadAudit(
        self, request: wire.ReadAuditRequest, _context: Context
    ) -> AsyncIterator[wire.ReadAuditResponse]:
        last: deque[AuditEntry] = deque(maxlen=request.last)
        part: list[AuditEntry] = []
        async for _, stored in self._stored(PREFIX):
            try:
                entry = codec.unpack(AuditEntry, stored)
            except InvalidArgument:
                continue  # what is wrong with the record, `verify` tells
            if _wanted(entry, request):
                (last if request.last else part).append(entry)
            if len(part) == _PART:
                yield _answer(part)
                part.clear()
        yield _answer([*last, *part])

    async def VerifyAudit(self, request: wire.VerifyAuditRequest, _context: Context) -> wire.VerifyAuditResponse:
        known = Point.parse(request.known) if request.known else None
        faults: Faults | None = None
        found: list[str] = []
        count = 0
        # The head's key comes before those of all lines, and all are of one revision.
        async for key, stored in self._stored(RECORD):
            if key == HEAD_KEY:
                faults = Faults(self._room.ledger.opened(stored), known)
            elif faults is None:
                raise InvalidArgument("the head of the audit record is missing", hint="nothing can be verified")
            else:
                count += 1
                found += faults.of(key, stored)
        if faults is None:
            return wire.VerifyAuditResponse(head=Point().text)
        found += faults.end()
        return wire.VerifyAuditResponse(
            lines=count,
            trimmed=faults.head.anchor.number,
            head=faults.head.last.text,
            faults=found[:_MAX_FAULTS],
            more_faults=max(0, len(found) - _MAX_FAULTS),
        )

    async def _stored(self, prefix: str) -> AsyncIterator[tuple[str, bytes]]:
        async for page in self._room.store.scan(prefix):
            for record in page.records:
                yield record.key, record.value


def _answer(entries: Iterable[AuditEntry]) -> wire.ReadAuditResponse:
    return wire.ReadAuditResponse(entries=[to_wire(entry, types_pb2.AuditEntry) for entry in entries])


def _wanted(entry: AuditEntry, request: wire.ReadAuditRequest) -> bool:
    return (
        entry.at_ns >= request.since_ns
        and (not request.until_ns or entry.at_ns < request.until_ns)
        and (not request.user or entry.actor == f"user {request.user}")
        and (not request.verb or entry.verb == request.verb or entry.verb.startswith(f"{request.verb} "))
        and (not request.denied or entry.decision == "denied")
    )
