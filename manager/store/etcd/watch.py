"""Watch: every commit under a prefix, over whatever breaks: a stream that ends is begun anew after the last commit that
was delivered, at this endpoint or another. `event` joins what comes; `client` tells who is in trouble."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

from manager.store.base import Commit
from manager.store.etcd import method
from manager.store.etcd.client import Client
from manager.store.etcd.event import Joint
from manager.store.etcd.fault import TOO_LARGE, Fault, Outcome
from manager.store.etcd.keyspace import Keyspace
from shoal.backoff import Backoff
from shoal.clock import Clock
from shoal.errors import Compacted, PermissionDenied, Unavailable
from shoal.etcd.v3 import wire_pb2 as wire

log = logging.getLogger(__name__)


async def watch(client: Client, keyspace: Keyspace, prefix: str, *, after: int, clock: Clock) -> AsyncIterator[Commit]:
    """See `base.Store.watch`."""
    cursor = after
    backoff = Backoff(0.05, 1.0)
    denied = in_parts = False
    while True:
        try:
            async with client.stream(method.WATCH) as stream:
                await stream.write(_request(keyspace, prefix, cursor, in_parts=in_parts))
                joint = Joint(keyspace, cursor)
                while True:
                    answer = await stream.read()
                    _check(answer, cursor)
                    if answer.created:
                        backoff.reset()
                        denied = False
                    for commit in joint.whole(answer):
                        cursor = commit.revision
                        yield commit
                        # One answer may hold a thousand commits; the rest of the process has to live meanwhile.
                        await asyncio.sleep(0)
                    if not answer.created and not answer.events:
                        cursor = max(cursor, answer.header.revision)  # nothing of ours happened up to there
        except PermissionDenied:
            # A token that etcd does not know any more looks the same: one more try, with a fresh one.
            if denied:
                raise
            denied = True
            client.forget_token()
        except Fault as fault:
            too_large = TOO_LARGE in fault.why
            if fault.outcome is Outcome.REFUSED and not (too_large and not in_parts):
                raise fault.error from fault
            in_parts = too_large
            log.debug("a watch goes on: %s", fault.why)
            await clock.sleep(backoff.next())


def _request(keyspace: Keyspace, prefix: str, cursor: int, *, in_parts: bool) -> wire.WatchRequest:
    """From the cursor itself on, which `Joint` leaves out again: etcd before 3.4.36 says nothing when it compacted
    just the first revision asked for, and a deletion in it is then missing (etcd-io/etcd#19179).

    `in_parts` only where it must be: etcd measures a part anew for each event that it adds, and sends a few thousand
    small events a second so, less than are written.
    """
    return wire.WatchRequest(
        create=wire.WatchCreateRequest(
            key=keyspace.full(prefix),
            range_end=keyspace.after(prefix),
            start_revision=max(cursor, 1),
            progress_notify=True,
            fragment=in_parts,
        )
    )


def _check(answer: wire.WatchResponse, cursor: int) -> None:
    if answer.compact_revision:
        raise Compacted(cursor, answer.compact_revision + 1)
    if not answer.canceled:
        return
    reason = answer.cancel_reason or "the watch was cancelled"
    if "permission denied" in reason:
        raise PermissionDenied(f"etcd: {reason}")
    raise Fault(Outcome.UNSURE, reason, Unavailable(f"etcd: {reason}"))
