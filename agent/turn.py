"""Turn: members of etcd are restarted one after the other, so that most of them serve all the while.

Who wants to restart its member takes a key of etcd's that one at a time can have, and waits until the others are well;
the key goes when that member serves again. It hangs on a lease, so that a host that dies holds nobody up for long.
Where etcd does not answer there is no quorum to lose, and nobody to ask: then there is no turn to wait for.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from typing import TypeVar

import grpc.aio
from google.protobuf.message import Message

from shoal.clock import Clock
from shoal.etcd.v3 import wire_pb2 as wire
from shoal.rpc import dial
from shoal.tls import Identity

log = logging.getLogger(__name__)

A = TypeVar("A", bound=Message)

ASK_S = 2.0
# Beside what managers keep, whose keys begin with a slash.
_KEY = b"shoal-turn"
# For whoever died with it: longer than the others are waited for and a restart takes.
_HOLD_S = 90
_SILENCE_S = 10.0
_OTHERS_S = 30.0
_LOOK_S = 0.5


@contextlib.asynccontextmanager
async def turn(endpoint: str, identity: Identity, *, clock: Clock) -> AsyncIterator[None]:
    """Have the turn for as long as the block lasts, among the members of the etcd that serves at `endpoint`."""
    lease = await _taken(endpoint, identity, clock)
    try:
        if lease:
            await _others_well(endpoint, identity, clock)
        yield
    finally:
        if lease:
            with contextlib.suppress(grpc.aio.AioRpcError):  # then it ends by itself
                async with dial(endpoint, identity=identity) as channel:
                    await ask(channel, "Lease/LeaseRevoke", wire.LeaseRevokeRequest(id=lease), wire.LeaseRevokeResponse)


async def ask(channel: grpc.aio.Channel, method: str, request: Message, answer: type[A]) -> A:
    """One call of etcd's. Raises AioRpcError."""
    call = channel.unary_unary(
        f"/etcdserverpb.{method}",
        request_serializer=type(request).SerializeToString,
        response_deserializer=answer.FromString,
    )
    got: A = await call(request, timeout=ASK_S)
    return got


async def _taken(endpoint: str, identity: Identity, clock: Clock) -> int:
    """The lease of the key, once it is ours; 0 when etcd does not answer."""
    heard = clock.monotonic()
    async with dial(endpoint, identity=identity) as channel:
        while clock.monotonic() - heard < _SILENCE_S:
            try:
                if lease := await _try(channel):
                    return lease
                heard = clock.monotonic()
            except grpc.aio.AioRpcError as error:
                log.debug("etcd gives no turn: %s", error.details())
            await clock.sleep(_LOOK_S)
    return 0


async def _try(channel: grpc.aio.Channel) -> int:
    """A lease with the key, or 0 while somebody else has it."""
    request = wire.LeaseGrantRequest(ttl_s=_HOLD_S)
    lease = (await ask(channel, "Lease/LeaseGrant", request, wire.LeaseGrantResponse)).id
    free = wire.Compare(target=wire.Compare.TARGET_MOD, key=_KEY, mod_revision=0)
    put = wire.RequestOp(put=wire.PutRequest(key=_KEY, lease=lease))
    if (await ask(channel, "KV/Txn", wire.TxnRequest(compare=[free], success=[put]), wire.TxnResponse)).succeeded:
        return lease
    await ask(channel, "Lease/LeaseRevoke", wire.LeaseRevokeRequest(id=lease), wire.LeaseRevokeResponse)
    return 0


async def _others_well(endpoint: str, identity: Identity, clock: Clock) -> None:
    """Return once they serve; one that is off is not waited for any longer than 30 s."""
    deadline = clock.monotonic() + _OTHERS_S
    while clock.monotonic() < deadline:
        with contextlib.suppress(grpc.aio.AioRpcError):
            async with dial(endpoint, identity=identity) as channel:
                listed = await ask(channel, "Cluster/MemberList", wire.MemberListRequest(), wire.MemberListResponse)
            clients = [url.split("://", 1)[-1] for member in listed.members for url in list(member.client_urls)[:1]]
            if await _all_serve(clients, identity):
                return
        await clock.sleep(_LOOK_S)
    log.warning("not all members of etcd are well; this one is restarted all the same")


async def _all_serve(endpoints: Sequence[str], identity: Identity) -> bool:
    for endpoint in endpoints:
        async with dial(endpoint, identity=identity) as channel:
            status = await ask(channel, "Maintenance/Status", wire.StatusRequest(), wire.StatusResponse)
        if not status.leader:
            return False
    return True
