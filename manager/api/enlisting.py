"""Enlisting: what a node that is to be a manager is told, and its place in the managers' own etcd.

It comes in as a learner, which has no vote; the leader gives it one when it has caught up (`manager/quorum.py`).
Whatever breaks off, the node asks again and is told the same.
"""

from __future__ import annotations

import msgspec

from manager.ca.authority import Seal
from manager.control.roster import note_address, peer_url
from manager.store.base import Store
from manager.store.member import Member, Members
from manager.store.mirror import Mirror
from shoal.clock import Clock
from shoal.codec import to_wire
from shoal.errors import InvalidArgument
from shoal.model.access import StoreAccess
from shoal.settings import ETCD_CLIENT_PORT, host_port
from shoal.v1 import manager_pb2 as wire
from shoal.v1 import types_pb2


class Enlisting:
    """`members` is there for an etcd of the managers' own."""

    def __init__(
        self, store: Store, mirror: Mirror, clock: Clock, seal: Seal, access: StoreAccess, members: Members | None
    ) -> None:
        self._store = store
        self._mirror = mirror
        self._clock = clock
        self._seal = seal
        self._access = access
        self._members = members

    async def enlist(self, node_id: str, address: str) -> wire.EnlistResponse:
        """Raises Conflict while another one is a learner."""
        if self._members is None:
            return self._answer(self._access, "")
        try:
            host, _ = host_port(address, 0)
        except ValueError as error:
            raise InvalidArgument(f"invalid address of a manager: {error}") from error
        # First the record, by which the leader knows whose the member is.
        await note_address(self._store, self._mirror, node_id, address, self._clock)
        await self._members.add_learner(peer_url(address))
        members = [each for each in await self._members.list() if each.peer_url != peer_url(address)]
        initial = [f"{each.name}={each.peer_url}" for each in members if each.name]
        endpoints = (*_voting(members), f"{host}:{ETCD_CLIENT_PORT}")
        access = msgspec.structs.replace(self._access, endpoints=endpoints)
        return self._answer(access, ",".join([*initial, f"{host}={peer_url(address)}"]))

    def _answer(self, access: StoreAccess, initial_cluster: str) -> wire.EnlistResponse:
        store = to_wire(access, types_pb2.StoreAccess)
        return wire.EnlistResponse(seal_key=self._seal.key, store=store, initial_cluster=initial_cluster)


def _voting(members: list[Member]) -> list[str]:
    return [each.clients[0] for each in members if each.clients and not each.learner]
