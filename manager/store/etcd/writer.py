"""Writer: transactions on their way to etcd. What waits while others are being written goes together in one request.

A transaction that etcd turns away as a whole request is tried alone, so that it fails nobody else. Whether it was done
is known, or the caller hears Unavailable (`sending`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import TypeAlias

from manager.store.base import Conflict, Put, Txn
from manager.store.etcd import method
from manager.store.etcd.client import Client
from manager.store.etcd.keyspace import MARK, Keyspace
from manager.store.etcd.sending import Sent, happens_once, send_again, send_once
from manager.store.etcd.transaction import MAX_OPS, Batch, answers_of, changed_anything, request_of
from shoal.errors import InvalidArgument, NotFound, ShoalError, Unavailable
from shoal.etcd.v3 import wire_pb2 as wire

# More gains little: etcd writes its log one entry after the other.
IN_FLIGHT = 4
Outcome: TypeAlias = int | ShoalError


class Writer:
    """`seen` is the latest revision known to have changed something below our prefix."""

    def __init__(self, client: Client, keyspace: Keyspace) -> None:
        self._client = client
        self._keyspace = keyspace
        self._waiting: deque[tuple[Txn, asyncio.Future[Outcome]]] = deque()
        self._senders: set[asyncio.Task[None]] = set()
        self._closed = False
        self.seen = 0

    def saw(self, revision: int) -> None:
        self.seen = max(self.seen, revision)

    async def write(self, txn: Txn) -> Outcome:
        """The revision, or what came in between. Cancelled, it may happen yet."""
        if self._closed:
            return Unavailable("the store is closed")
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append((txn, future))
        if len(self._senders) < IN_FLIGHT:
            sender = asyncio.create_task(self._send_waiting(), name="etcd-write")
            self._senders.add(sender)
            sender.add_done_callback(self._senders.discard)
        return await future

    async def close(self) -> None:
        """What is on its way gets its answer; what waits does not go any more."""
        self._closed = True
        for _, future in self._waiting:
            if not future.done():
                future.set_result(Unavailable("the store is closed"))
        self._waiting.clear()
        await asyncio.gather(*self._senders, return_exceptions=True)

    async def _send_waiting(self) -> None:
        while self._waiting:
            txns, futures = self._taken()
            if not txns:
                return
            outcomes: Sequence[Outcome] = [Unavailable("the store's writer has ended")] * len(txns)
            try:
                outcomes = await self._send(txns)
            except ShoalError as error:
                outcomes = [error] * len(txns)
            finally:  # whatever happened, nobody may wait for ever
                for future, outcome in zip(futures, outcomes, strict=True):
                    if not future.done():
                        future.set_result(outcome)

    def _taken(self) -> tuple[list[Txn], list[asyncio.Future[Outcome]]]:
        """What may go in one request, of what waits, in order."""
        batch, futures = Batch(), []
        while self._waiting:
            txn, future = self._waiting[0]
            if not future.done():  # else nobody waits for it any more
                if not batch.takes(txn):
                    break
                futures.append(future)
            self._waiting.popleft()
        return batch.txns, futures

    async def _send(self, txns: Sequence[Txn]) -> list[Outcome]:
        try:
            return await self._transact(txns)
        except (InvalidArgument, NotFound) as refusal:
            if len(txns) == 1:
                return [refusal]
        # One has a lease that is gone, or so; etcd checks a request before it does any of it.
        return [outcome for txn in txns for outcome in await self._send([txn])]

    async def _transact(self, txns: Sequence[Txn]) -> list[Outcome]:
        request = request_of(txns, self._keyspace)
        send = send_again if all(happens_once(txn) for txn in txns) else send_once
        sent = await send(self._client, request)
        tries = zip(*(answers_of(answer, len(txns)) for answer in sent.answers), strict=True)
        return list(
            await asyncio.gather(*(self._outcome(txn, tried, sent) for txn, tried in zip(txns, tries, strict=True)))
        )

    async def _outcome(self, txn: Txn, tried: Sequence[wire.TxnResponse], sent: Sent) -> Outcome:
        """What one transaction came to, by the answers to each sending of it."""
        for answer, whole in zip(tried, sent.answers, strict=True):
            if answer.succeeded:
                return await self._revision(answer, whole.header.revision)
        return sent.unsure or await self._conflict(txn, sent.answers[0].header.revision)

    async def _revision(self, answer: wire.TxnResponse, revision: int) -> int:
        if changed_anything(answer):
            self.saw(revision)
        elif revision > self.seen:
            # Somebody else's change raised etcd's revision, perhaps outside of our prefix: no mirror would reach it.
            return await self._marked()
        return revision

    async def _marked(self) -> int:
        request = request_of([Txn(puts=(Put(MARK, b""),))], self._keyspace)
        answer = await self._client.ask(method.TXN, request, again=True)
        self.saw(answer.header.revision)
        return answer.header.revision

    async def _conflict(self, txn: Txn, revision: int) -> Conflict:
        """Which guards did not hold, as it was at `revision`; all of them where that cannot be told any more."""
        keys = tuple(guard.key for guard in txn.guards)
        if len(keys) == 1:
            return Conflict(keys)
        ranges = [wire.RangeRequest(key=self._keyspace.full(key), revision=revision, keys_only=True) for key in keys]
        request = wire.TxnRequest(success=[wire.RequestOp(range=each) for each in ranges[:MAX_OPS]])
        try:
            answer = await self._client.ask(method.TXN, request, again=True)
        except (Unavailable, InvalidArgument):
            return Conflict(keys)
        found = [response.range.kvs[0].mod_revision if response.range.kvs else 0 for response in answer.responses]
        wrong = tuple(
            guard.key for guard, mod_revision in zip(txn.guards, found, strict=True) if guard.revision != mod_revision
        )
        return Conflict(wrong or keys)
