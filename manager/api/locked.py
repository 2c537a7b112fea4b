"""Locked: a manager whose seal is wrapped, until somebody brings the unlock key to its own socket.

It serves nothing else; whoever calls anything is told what to do. Agents find nobody at its port and turn to other
managers, and what runs goes on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from manager.ca.authority import Seal
from manager.ca.lock import Lock, UnlockKey
from shoal.errors import Locked, PermissionDenied
from shoal.rpc import listen_locally, new_server
from shoal.tasks import first_of
from shoal.v1 import swarm_pb2 as wire
from shoal.v1 import swarm_pb2_grpc

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

log = logging.getLogger(__name__)
# Long enough for the answer that the key was right.
_STOP_SERVING_S = 2.0


async def unlocked(lock: Lock, socket: Path, services: Sequence[str], ending: asyncio.Event) -> Seal | None:
    """The seal, once it was unlocked through `socket`; None when the process is to end before. Calls of `services`
    are refused."""
    servicer = _Unlocking(lock)
    server = new_server()
    swarm_pb2_grpc.add_UnlockServiceServicer_to_server(servicer, server)
    server.add_generic_rpc_handlers((_Refusal(services),))
    socket.parent.mkdir(parents=True, exist_ok=True, mode=0o711)
    socket.unlink(missing_ok=True)
    listen_locally(server, socket)
    await server.start()
    log.warning("locked; 'shoal swarm unlock' on this host unlocks it")
    await first_of(servicer.done.wait(), ending.wait())
    await server.stop(_STOP_SERVING_S)
    socket.unlink(missing_ok=True)
    return servicer.seal


class _Unlocking(swarm_pb2_grpc.UnlockServiceServicer):
    def __init__(self, lock: Lock) -> None:
        self._lock = lock
        self.seal: Seal | None = None
        self.done = asyncio.Event()

    async def Unlock(self, request: wire.UnlockRequest, _context: Context) -> wire.UnlockResponse:
        try:
            self.seal = self._lock.open(UnlockKey.parse(request.key))
        except PermissionDenied:
            log.warning("a wrong unlock key was tried")
            raise
        self.done.set()
        log.info("unlocked")
        return wire.UnlockResponse()


class _Refusal(grpc.GenericRpcHandler):
    """Tells every caller of these services that the manager is locked."""

    def __init__(self, services: Sequence[str]) -> None:
        self._services = frozenset(services)

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        if details.method.rsplit("/", 1)[0].lstrip("/") not in self._services:
            return None

        async def refuse(_requests: AsyncIterator[bytes], _context: Context) -> None:
            raise Locked

        return grpc.stream_stream_rpc_method_handler(refuse)
