"""Action: what a decision returns, and the one function that commits a list of them.

An action carries the revision that the decision read (`guard`, 0: the record must not exist yet), why it is
wanted, and what else it rests on: it is dropped, not half done, when any of these changed meanwhile. Deciders
return actions; only `commit` writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias, TypeVar

import msgspec

from manager.store import base
from manager.store.base import Guard, Store, Txn
from manager.store.records import Noun, encode, key_for, key_of, kind_of
from shoal.errors import Unavailable

V = TypeVar("V", bound=Noun)


class Put(msgspec.Struct, frozen=True):
    """Write `value`, which was at revision `guard` when the decision read it."""

    kind: str
    value: Noun
    guard: int
    reason: str
    rests_on: tuple[Guard, ...] = ()

    @property
    def id(self) -> str:
        return self.value.meta.id

    @property
    def key(self) -> str:
        return key_of(self.kind, self.value.meta.id)


class Delete(msgspec.Struct, frozen=True):
    kind: str
    id: str
    guard: int
    reason: str
    rests_on: tuple[Guard, ...] = ()

    @property
    def key(self) -> str:
        return key_of(self.kind, self.id)


Action: TypeAlias = Put | Delete


class Committed(msgspec.Struct, frozen=True):
    """What came of a list of actions: those written are durable at `revision` (0: none was), `conflicts` were not
    done because somebody else was faster."""

    revision: int
    conflicts: tuple[Action, ...]


class LeadershipLost(Unavailable):
    """The fence does not hold any more: another manager leads, and nothing was written."""

    def __init__(self) -> None:
        super().__init__("this manager no longer leads the cluster", hint="ask the new leader")


def create(value: Noun, reason: str, *, rests_on: tuple[Guard, ...] = ()) -> Put:
    """Write a record that must not exist yet."""
    return Put(kind_of(value), value, 0, reason, rests_on)


def change(new: Noun, reason: str, *, rests_on: tuple[Guard, ...] = ()) -> Put:
    """Write a changed copy of a record that the decision read (its `meta.version`)."""
    return Put(kind_of(new), new, new.meta.version, reason, rests_on)


def delete(old: Noun, reason: str) -> Delete:
    return Delete(kind_of(old), old.meta.id, old.meta.version, reason)


def resting_on(*values: Noun) -> tuple[Guard, ...]:
    """Guards for records that a decision read without changing them, or that it changes in the same list."""
    return tuple(Guard(key_for(value), value.meta.version) for value in values)


def touched(value: V, now_ns: int, **fields: Any) -> V:
    """A copy of `value` with `fields` replaced and its time of change set."""
    meta = msgspec.structs.replace(value.meta, updated_at_ns=now_ns)
    return msgspec.structs.replace(value, meta=meta, **fields)


async def commit(store: Store, actions: Sequence[Action], fence: tuple[Guard, ...] = ()) -> Committed:
    """Write `actions` in transactions of at most MAX_OPS, many at a time.

    An action whose guards do not hold is left out and returned, with those that rest on what it would have
    changed; the others of its transaction are written. The order of the list is kept. Raises LeadershipLost when
    `fence` does not hold; what was written before that stays.
    """
    fence_keys = {guard.key for guard in fence}
    revision = 0
    conflicts: list[Action] = []
    waiting = list(_chunks(map(_write, actions), room=base.MAX_GUARDS - len(fence)))
    while waiting:
        results = await store.txn_many([_txn(chunk, fence) for chunk in waiting])
        again = []
        for chunk, result in zip(waiting, results, strict=True):
            if isinstance(result, int):
                revision = max(revision, result)
                continue
            in_the_way = set(result.keys)
            if in_the_way & fence_keys:
                raise LeadershipLost
            kept: list[_Write] = []
            for write in chunk:
                if in_the_way.isdisjoint(guard.key for guard in write.guards):
                    kept.append(write)
                else:
                    conflicts.append(write.action)
            if kept:
                again.append(kept)
        waiting = again
    return Committed(revision, tuple(conflicts))


class _Write(msgspec.Struct, frozen=True, gc=False):
    """An action as the store takes it. `put` is None for a deletion."""

    action: Action
    key: str
    guards: tuple[Guard, ...]
    put: base.Put | None

    @property
    def size(self) -> int:
        return len(self.key) + (len(self.put.value) if self.put else 0)


def _write(action: Action) -> _Write:
    key = action.key
    put = base.Put(key, encode(action.value)) if isinstance(action, Put) else None
    return _Write(action, key, (Guard(key, action.guard), *action.rests_on), put)


def _txn(writes: Sequence[_Write], fence: tuple[Guard, ...]) -> Txn:
    guards = dict.fromkeys(fence)
    for write in writes:
        guards.update(dict.fromkeys(write.guards))
    puts = tuple(write.put for write in writes if write.put)
    return Txn(tuple(guards), puts, tuple(write.key for write in writes if not write.put))


def _chunks(writes: Iterable[_Write], *, room: int) -> Iterable[list[_Write]]:
    """Lists that fit one transaction each by operations, guards and bytes."""
    chunk: list[_Write] = []
    guards: set[Guard] = set()
    size = 0
    for unit in _units(writes):
        more = {guard for write in unit for guard in write.guards} - guards
        length = sum(write.size for write in unit)
        ops = len(chunk) + len(unit)
        if chunk and (ops > base.MAX_OPS or len(guards) + len(more) > room or size + length > base.MAX_BYTES):
            yield chunk
            chunk, guards, size = [], set(), 0
            more = {guard for write in unit for guard in write.guards}
        chunk += unit
        guards |= more
        size += length
    if chunk:
        yield chunk


def _units(writes: Iterable[_Write]) -> Iterable[list[_Write]]:
    """Each write with those right after it that rest on what it changes: in two transactions, the first would break
    the guard of the second."""
    unit: list[_Write] = []
    keys: set[str] = set()
    for write in writes:
        if unit and keys.isdisjoint(guard.key for guard in write.action.rests_on):
            yield unit
            unit, keys = [], set()
        unit.append(write)
        keys.add(write.key)
    if unit:
        yield unit
