"""SummonService: a manager of the cluster says where this node finds its managers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import grpc.aio

from shoal.errors import InvalidArgument
from shoal.settings import MANAGER_PORT, host_port
from shoal.v1 import swarm_pb2 as wire
from shoal.v1.swarm_pb2_grpc import SummonServiceServicer

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

_MOST = 16


class SummonService(SummonServiceServicer):
    """`heed` is told of the managers that a call names."""

    def __init__(self, heed: Callable[[Sequence[str]], None]) -> None:
        self._heed = heed

    async def Summon(self, request: wire.SummonRequest, _context: Context) -> wire.SummonResponse:
        if not 0 < len(request.managers) <= _MOST:
            raise InvalidArgument(f"a summons names {len(request.managers)} managers, not 1 to {_MOST}")
        for manager in request.managers:
            try:
                host_port(manager, MANAGER_PORT)
            except ValueError as error:
                raise InvalidArgument(f"a summons names the manager {manager!r}: {error}") from error
        self._heed(tuple(request.managers))
        return wire.SummonResponse()
