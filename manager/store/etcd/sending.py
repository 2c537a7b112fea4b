"""Sending: a request to write goes out once; or more often, where its guards see to it that it happens once.

A member of etcd that has passed a request on to a leader that dies waits for an answer for as long as anybody lets it,
and the next leader is there a second later. A request that guards what it changes can be sent again meanwhile,
elsewhere: whichever comes later meets a changed guard.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from manager.store.base import Txn
from manager.store.etcd import method
from manager.store.etcd.client import CALL_S, Client
from shoal.errors import Unavailable
from shoal.etcd.v3 import wire_pb2 as wire

# Longer than a write takes on a busy disk. After three sendings an election is over.
PATIENCE_S = 1.0
SENDINGS = 3


class Sent(msgspec.Struct, frozen=True):
    """The `answers` that came, the earlier sending's first, and what befell a sending that got none: what no answer
    calls done may then have happened all the same."""

    answers: tuple[wire.TxnResponse, ...]
    unsure: Unavailable | None = None


def happens_once(txn: Txn) -> bool:
    """Whether doing it changes one of its own guards."""
    put = {put.key for put in txn.puts}
    return any(guard.key in put or (guard.key in txn.deletes and guard.revision) for guard in txn.guards)


async def send_once(client: Client, request: wire.TxnRequest) -> Sent:
    """Raises Unavailable when it may have happened, and what `client.ask` raises for a refusal."""
    return Sent((await client.ask(method.TXN, request, again=False),))


async def send_again(client: Client, request: wire.TxnRequest) -> Sent:
    """As `send_once`, and again elsewhere for each second without an answer. Done once in any case, if at all."""
    deadline = client.clock.monotonic() + CALL_S
    sendings: list[asyncio.Task[wire.TxnResponse]] = []
    try:
        while (left_s := deadline - client.clock.monotonic()) > 0 and not _settled(sendings):
            if len(sendings) < SENDINGS:
                ask = client.ask(method.TXN, request, again=False, timeout_s=left_s, skip=len(sendings))
                sendings.append(asyncio.ensure_future(ask))
            waiting = [each for each in sendings if not each.done()]
            if not waiting:
                break
            wait_s = PATIENCE_S if len(sendings) < SENDINGS else left_s
            await asyncio.wait(waiting, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
        return _sent(sendings)
    finally:
        for sending in sendings:
            sending.cancel()
        await asyncio.gather(*sendings, return_exceptions=True)


def _settled(sendings: Sequence[asyncio.Task[wire.TxnResponse]]) -> bool:
    """Whether waiting longer tells nothing more: one has done all that was asked, or none is unsure."""
    known = [each for each in sendings if each.done() and not isinstance(each.exception(), Unavailable)]
    if known and len(known) == len(sendings):
        return True
    return any(each.exception() is None and _all_done(each.result()) for each in known)


def _all_done(answer: wire.TxnResponse) -> bool:
    return answer.succeeded and all(
        each.txn.succeeded for each in answer.responses if each.WhichOneof("response") == "txn"
    )


def _sent(sendings: Sequence[asyncio.Task[wire.TxnResponse]]) -> Sent:
    answers, refusals, unsure = [], [], None
    for each in sendings:
        if not each.done():
            unsure = unsure or Unavailable("etcd did not answer in time")
        elif isinstance(error := each.exception(), Unavailable):
            unsure = error
        elif error is not None:
            refusals.append(error)
        else:
            answers.append(each.result())
    if not answers:
        raise unsure or refusals[0]
    return Sent(tuple(answers), unsure)
