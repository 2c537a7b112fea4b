"""SwarmService: `swarm init`, `join`, `leave`, `restore` for this host, on its own socket only."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import grpc.aio

from agent.standing import Founded, Standing
from shoal.codec import from_wire
from shoal.errors import InvalidArgument
from shoal.model.access import StoreAccess
from shoal.model.cluster import ClusterSpec
from shoal.model.node import Availability
from shoal.recovery import Secrets
from shoal.v1 import swarm_pb2 as wire
from shoal.v1 import types_pb2
from shoal.v1.swarm_pb2_grpc import SwarmServiceServicer

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]


class Coming(Protocol):
    """What this needs of `agent.membership.Membership`."""

    async def init(
        self, *, advertise: str, listen: str, availability: Availability, spec: ClusterSpec, store: StoreAccess
    ) -> Founded: ...

    async def join(
        self, *, token: str, managers: Sequence[str], advertise: str, availability: Availability
    ) -> Standing: ...

    async def leave(self, *, force: bool) -> None: ...

    async def renew(self) -> int: ...

    async def unlock(self, key: str) -> None: ...

    async def force_new(self, *, advertise: str, listen: str) -> Founded: ...

    async def migrate(self, store: StoreAccess) -> bool: ...

    async def restore(
        self, chunks: AsyncIterator[bytes], secrets: Secrets, *, advertise: str, listen: str, availability: Availability
    ) -> Founded: ...


class SwarmService(SwarmServiceServicer):
    def __init__(self, membership: Coming) -> None:
        self._membership = membership

    async def InitSwarm(self, request: wire.InitSwarmRequest, _context: Context) -> wire.InitSwarmResponse:
        if request.force_new_cluster:
            founded = await self._membership.force_new(
                advertise=request.advertise_address, listen=request.listen_address
            )
        else:
            founded = await self._membership.init(
                advertise=request.advertise_address,
                listen=request.listen_address,
                availability=_availability(request.availability),
                spec=from_wire(request.spec, ClusterSpec),
                store=from_wire(request.store, StoreAccess),
            )
        return wire.InitSwarmResponse(
            node_id=founded.node_id,
            worker_token=founded.worker_token,
            manager_address=founded.manager_address,
            unlock_key=founded.unlock_key,
            locked=founded.locked,
        )

    async def JoinSwarm(self, request: wire.JoinSwarmRequest, _context: Context) -> wire.JoinSwarmResponse:
        standing = await self._membership.join(
            token=request.token,
            managers=tuple(request.managers),
            advertise=request.advertise_address,
            availability=_availability(request.availability),
        )
        role = types_pb2.Role.Value(f"ROLE_{standing.role.name}")
        return wire.JoinSwarmResponse(node_id=standing.node_id, role=role)

    async def LeaveSwarm(self, request: wire.LeaveSwarmRequest, _context: Context) -> wire.LeaveSwarmResponse:
        await self._membership.leave(force=request.force)
        return wire.LeaveSwarmResponse()

    async def RenewCertificateNow(
        self, _request: wire.RenewCertificateNowRequest, _context: Context
    ) -> wire.RenewCertificateNowResponse:
        return wire.RenewCertificateNowResponse(not_after_ns=await self._membership.renew())

    async def UnlockSwarm(self, request: wire.UnlockSwarmRequest, _context: Context) -> wire.UnlockSwarmResponse:
        await self._membership.unlock(request.key)
        return wire.UnlockSwarmResponse()

    async def MigrateSwarm(self, request: wire.MigrateSwarmRequest, _context: Context) -> wire.MigrateSwarmResponse:
        serves = await self._membership.migrate(from_wire(request.store, StoreAccess))
        return wire.MigrateSwarmResponse(locked=not serves)

    async def RestoreSwarm(
        self, requests: AsyncIterator[wire.RestoreSwarmRequest], _context: Context
    ) -> wire.RestoreSwarmResponse:
        first = await anext(aiter(requests), None)
        if first is None or first.WhichOneof("request") != "open":
            raise InvalidArgument("a restore begins with how it is to be done (`open`)")
        wanted = first.open
        founded = await self._membership.restore(
            (each.chunk async for each in requests),
            Secrets(
                wanted.passphrase,
                wanted.seal,
                from_wire(wanted.store, StoreAccess),
                unlock_key=wanted.unlock_key,
            ),
            advertise=wanted.advertise_address,
            listen=wanted.listen_address,
            availability=_availability(wanted.availability),
        )
        return wire.RestoreSwarmResponse(node_id=founded.node_id, manager_address=founded.manager_address)


def _availability(number: int) -> Availability:
    """ACTIVE where nothing was said."""
    try:
        return Availability(number or Availability.ACTIVE)
    except ValueError as error:
        raise InvalidArgument(f"availability {number} is not one that this agent knows") from error
