"""Sending: a request to write goes out once; or more often, where its guards see to it that it happens once.

A member of etcd that has passed a request on to a leader that dies waits for an answer for as long as anybody lets it,
and the next leader is there a second later. A request that guards what it changes can be sent again meanwhile,
elsewhere: whichever comes later meets a changed guard.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import msgspec

from manager.store.base import Txn
from manager.store.etcd import method
from manager.store.etcd.client import CALL_S, Client
from shoal.errors import ShoalError, Unavailable
from shoal.etcd.v3 import wire_pb2 as wire

# How long to wait before looking what keeps the answer.
PATIENCE_S = 0.5
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
    """As `send_once`, and again when another leader or another endpoint has come since. Done once in any case, if at
    all; the first answer to any sending counts."""
    deadline = client.clock.monotonic() + CALL_S
    sendings: list[asyncio.Task[wire.TxnResponse]] = []
    sent_at: object = None
    try:
        while (left_s := deadline - client.clock.monotonic()) > 0 and not any(map(_answered, sendings)):
            waiting = [each for each in sendings if not each.done()]
            if len(sendings) < SENDINGS and (not waiting or sent_at != client.position):
                sent_at = client.position
                ask = client.ask(method.TXN, request, again=False, timeout_s=left_s)
                waiting.append(asyncio.ensure_future(ask))
                sendings.append(waiting[-1])
            if not waiting:
                break
            done, _ = await asyncio.wait(waiting, timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                # On a disk that is only busy, neither will have changed, and the answer is yet to come.
                with contextlib.suppress(ShoalError):
                    await client.look(timeout_s=left_s)
        return _sent(sendings)
    finally:
        for sending in sendings:
            sending.cancel()
        await asyncio.gather(*sendings, return_exceptions=True)


def _answered(sending: asyncio.Task[wire.TxnResponse]) -> bool:
    return sending.done() and not isinstance(sending.exception(), Unavailable)


def _sent(sendings: Sequence[asyncio.Task[wire.TxnResponse]]) -> Sent:
    answers = tuple(each.result() for each in sendings if _answered(each))
    unsure = next((_what_befell(each) for each in sendings if not _answered(each)), None)
    if unsure is not None and not answers:
        raise unsure
    return Sent(answers, unsure)


def _what_befell(sending: asyncio.Task[wire.TxnResponse]) -> Unavailable:
    error = sending.exception() if sending.done() else None
    if isinstance(error, Unavailable):
        return error
    return Unavailable(f"etcd has not answered within {CALL_S:g} s", hint="it may yet be done: look, then ask again")
