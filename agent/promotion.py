"""Promotion: the steps by which a member becomes a manager, or ceases to be one, as the cluster wants it to.

What is next follows from what is there, so a host that dies between two steps goes on with the next one when it is
back. `agent/membership.py` takes them.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Sequence

import msgspec

from shoal.codec import from_wire
from shoal.errors import ShoalError, Unavailable
from shoal.model.access import StoreAccess
from shoal.model.node import Role
from shoal.rpc import dial, translated
from shoal.tls import Identity
from shoal.v1 import manager_pb2, manager_pb2_grpc

# An etcd of the managers' own takes a new member in meanwhile.
ENLIST_S = 15.0


class Step(enum.Enum):
    """RENEW: get a certificate that says the role; ENLIST: learn what a manager must know, and start one; RESIGN: stop
    it, and forget what only managers may know."""

    RENEW = "renew"
    ENLIST = "enlist"
    RESIGN = "resign"


class Commission(msgspec.Struct, frozen=True):
    """What a manager must know. `initial_cluster` is there for an etcd of the managers' own."""

    seal_key: bytes
    store: StoreAccess
    initial_cluster: str

    def __repr__(self) -> str:
        return "Commission(***)"


def next_step(wanted: Role | None, identity: Identity, *, manages: bool, address: str) -> Step | None:
    """What to do next; None: nothing. `wanted` is None while no manager has said it; `manages`: a manager process
    belongs to this host, which others reach at `address`."""
    if wanted is Role.MANAGER:
        if manages:
            return None
        return Step.ENLIST if identity.role is Role.MANAGER and _says(identity, address) else Step.RENEW
    if wanted is Role.WORKER:
        if manages:
            return Step.RESIGN
        return Step.RENEW if identity.role is Role.MANAGER else None
    return None


def _says(identity: Identity, address: str) -> bool:
    """Whether the certificate has the address, by which members of etcd dial each other. A name it need not have."""
    try:
        return str(ipaddress.ip_address(address)) in identity.addresses
    except ValueError:
        return True


async def enlist(identity: Identity, managers: Sequence[str], address: str) -> Commission:
    """Be told by the first of `managers` that answers. `address` ("ADDR:PORT") is where this host's manager will be.

    Raises what the last one said.
    """
    last: ShoalError = Unavailable("no manager is known to enlist with")
    for manager in managers:
        if manager == address:
            continue
        try:
            async with dial(manager, identity=identity) as channel:
                with translated():
                    answer = await manager_pb2_grpc.ManagerServiceStub(channel).Enlist(
                        manager_pb2.EnlistRequest(address=address), timeout=ENLIST_S
                    )
        except ShoalError as error:
            last = error
        else:
            return Commission(answer.seal_key, from_wire(answer.store, StoreAccess), answer.initial_cluster)
    raise last
