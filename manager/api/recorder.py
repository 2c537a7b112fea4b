"""Recorder: what of the calls of a manager gets into the audit record beside the changes of records, which bring their
line with them (`room`): refusals, and what is done through this manager on the engines of nodes.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import grpc.aio

from manager.api.deed import DENIED, line_of, object_in
from manager.api.rule import RULES
from manager.audit.denials import Denials
from manager.audit.ledger import Ledger
from manager.store.view import View
from shoal.access import Call, current
from shoal.errors import PermissionDenied, ShoalError
from shoal.forward import Requests
from shoal.names import printable
from shoal.rpc import Metadata, Surround
from shoal.tls import caller_of

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

log = logging.getLogger(__name__)


class Recorder(Surround):
    """Stands outside of the gate, whose refusals it notes."""

    def __init__(self, ledger: Ledger, denials: Denials, view: View, own_id: str) -> None:
        self._ledger = ledger
        self._denials = denials
        self._view = view
        self._own_id = own_id

    @contextlib.asynccontextmanager
    async def around(self, method: str, context: Context) -> AsyncIterator[None]:
        try:
            yield
        except PermissionDenied as refusal:
            call = Call(method, caller_of(context), context.peer())
            self._denials.add(
                line_of(call, self._view, self._own_id, decision=DENIED, outcome=printable(refusal.message))
            )
            raise

    @contextlib.asynccontextmanager
    async def relayed(self, method: str, metadata: Metadata, requests: Requests) -> AsyncIterator[None]:
        """A call on a node's engine. Its line is written before it is passed on; one that fails gets another."""
        rule = RULES.get(method)
        if rule is None or not rule.changes:
            yield
            return
        node = dict(metadata).get("shoal-node", "")
        object = f"{object_in(method, await requests.first())} on node {node!s}".strip()
        line = line_of(current(), self._view, self._own_id, object=object, outcome="begun")
        await self._ledger.note(line)
        try:
            yield
        except (grpc.aio.AioRpcError, ShoalError) as error:
            code = error.code.name if isinstance(error, ShoalError) else error.code().name
            failed = line_of(current(), self._view, self._own_id, object=object, outcome=f"failed: {code}")
            try:
                await self._ledger.note(failed)
            except ShoalError as unrecorded:
                log.error("the failure of %s cannot be recorded: %s", rule.verb, unrecorded)
            raise
