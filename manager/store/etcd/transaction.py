"""Transactions as etcd takes them: several independent ones in one request, each with its own outcome. No I/O.

etcd looks at all guards of a request, the nested ones too, before it does any of it, and takes a key's change only once
per request. So transactions share a request only if none changes what another one changes or guards.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from manager.store.base import Txn
from manager.store.etcd.keyspace import Keyspace
from shoal.etcd.v3 import wire_pb2 as wire

# etcd's --max-txn-ops: n nested transactions may have 128 - n guards or operations each.
MAX_OPS = 128
# What is well below etcd's --max-request-bytes (1.5 MiB), and short enough for the disk not to hold up others.
BATCH_BYTES = 1_000_000
BATCH_OPS = 1_000
# Around each key in a request.
_OVERHEAD = 24


class Batch:
    """Transactions that may share a request."""

    def __init__(self) -> None:
        self.txns: list[Txn] = []
        self._guarded: set[str] = set()
        self._changed: set[str] = set()
        self._widest = 0
        self._ops = 0
        self._bytes = 0

    def takes(self, txn: Txn) -> bool:
        """Whether `txn` was put in. An empty batch takes any."""
        guarded, changed = {guard.key for guard in txn.guards}, set(_changed(txn))
        widest = max(self._widest, len(changed), len(txn.guards))
        size = _size(txn)
        if self.txns and not (
            len(self.txns) + 1 + widest <= MAX_OPS
            and self._ops + len(changed) <= BATCH_OPS
            and self._bytes + size <= BATCH_BYTES
            and self._changed.isdisjoint(guarded | changed)
            and self._guarded.isdisjoint(changed)
        ):
            return False
        self.txns.append(txn)
        self._guarded |= guarded
        self._changed |= changed
        self._widest = widest
        self._ops += len(changed)
        self._bytes += size
        return True


def waves(txns: Sequence[Txn]) -> list[list[int]]:
    """The places of `txns`, in groups that must follow each other: what touches a key that an earlier one changes, or
    changes one that an earlier one guards, comes in a later group than that."""
    found: list[list[int]] = []
    changed_in: dict[str, int] = {}
    guarded_in: dict[str, int] = {}
    for place, txn in enumerate(txns):
        guarded, changed = [guard.key for guard in txn.guards], list(_changed(txn))
        wave = max((changed_in.get(key, -1) + 1 for key in (*guarded, *changed)), default=0)
        wave = max(wave, max((guarded_in.get(key, -1) + 1 for key in changed), default=0))
        if wave == len(found):
            found.append([])
        found[wave].append(place)
        for key in changed:
            changed_in[key] = wave
        for key in guarded:
            guarded_in[key] = max(wave, guarded_in.get(key, 0))
    return found


def request_of(txns: Sequence[Txn], keyspace: Keyspace) -> wire.TxnRequest:
    """One as it is, several nested."""
    requests = [_request(txn, keyspace) for txn in txns]
    if len(requests) == 1:
        return requests[0]
    return wire.TxnRequest(success=[wire.RequestOp(txn=request) for request in requests])


def answers_of(answer: wire.TxnResponse, count: int) -> list[wire.TxnResponse]:
    """The answer to each of `count` transactions."""
    return [answer] if count == 1 else [response.txn for response in answer.responses]


def changed_anything(answer: wire.TxnResponse) -> bool:
    return answer.succeeded and any(
        response.WhichOneof("response") == "put" or response.delete_range.deleted for response in answer.responses
    )


def _request(txn: Txn, keyspace: Keyspace) -> wire.TxnRequest:
    compare = [
        wire.Compare(target=wire.Compare.TARGET_MOD, key=keyspace.full(guard.key), mod_revision=guard.revision)
        for guard in txn.guards
    ]
    ops = [
        wire.RequestOp(put=wire.PutRequest(key=keyspace.full(put.key), value=put.value, lease=put.lease))
        for put in txn.puts
    ]
    ops += [wire.RequestOp(delete_range=wire.DeleteRangeRequest(key=keyspace.full(key))) for key in txn.deletes]
    return wire.TxnRequest(compare=compare, success=ops)


def _changed(txn: Txn) -> Iterable[str]:
    yield from (put.key for put in txn.puts)
    yield from txn.deletes


def _size(txn: Txn) -> int:
    keys = [guard.key for guard in txn.guards] + list(_changed(txn))
    return sum(len(key) + _OVERHEAD for key in keys) + sum(len(put.value) for put in txn.puts)
