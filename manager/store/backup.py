"""Backup: all that lasts in a store, as one file's bytes; and a store filled with what another held.

Taken from one revision, in parts, while others write. What leases hold (who leads, who serves) is not in it. A store
that is being filled is marked as that until it is whole and a manager takes it over: what breaks off before leaves one
that is nobody's truth, and the next try begins anew. The file's form is `shoal/backup.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from itertools import islice

import msgspec

from manager.store.base import MAX_BYTES, MAX_OPS, Guard, Put, Store, Txn
from manager.store.records import lasting
from shoal.backup import Encoder, Header, Item
from shoal.errors import Conflict, ShoalError, Unavailable

# Stands in a store from `begin` on; `finish` writes _WHOLE over it.
_MARKER = "/filling"
_WHOLE = b"whole"
_PART_BYTES = MAX_BYTES // 2
_TOGETHER = 8


async def packed(store: Store, header: Header) -> AsyncIterator[bytes]:
    """The bytes of a backup of what `store` holds now, whose revision is put into `header`."""
    encoder = Encoder()
    begun = False
    async for part in store.scan("/"):
        if not begun:
            begun = True
            yield encoder.begin(msgspec.structs.replace(header, revision=part.revision))
        if items := [Item(record.key, record.value) for record in part.records if lasting(record.key)]:
            yield await asyncio.to_thread(encoder.records, items)
    yield encoder.end()


async def begin(store: Store, *, what: str) -> None:
    """Mark `store` as being filled by `what` ("a restore"). It must be empty, or hold what another try left.

    Raises Conflict when it holds anything else.
    """
    keys = [record.key async for part in store.scan("/") for record in part.records]
    if keys and _MARKER not in keys:
        raise Conflict(f"the store is not empty: it holds {len(keys)} records, the first one is {keys[0]}")
    await store.txn(Txn(puts=(Put(_MARKER, what.encode()),)))
    rest = [key for key in keys if key != _MARKER]
    for at in range(0, len(rest), MAX_OPS):
        await store.txn(Txn(deletes=tuple(rest[at : at + MAX_OPS])))


async def fill(store: Store, items: Iterable[Item]) -> None:
    """Write `items`, between `begin` and `finish`."""
    waiting = (Txn(puts=tuple(Put(item.key, item.value) for item in part)) for part in parts(items))
    while group := list(islice(waiting, _TOGETHER)):
        await store.txn_many(group)


async def compare(store: Store, items: Iterable[Item]) -> None:
    """Read back what was filled in. Raises Unavailable unless it is exactly `items`, which are ordered by key."""
    wanted = iter(items)
    async for part in store.scan("/"):
        for record in part.records:
            if record.key != _MARKER and next(wanted, None) != Item(record.key, record.value):
                raise Unavailable(f"the store does not hold {record.key} as it was written", hint="try again")
    if (missing := next(wanted, None)) is not None:
        raise Unavailable(f"the store lost {missing.key} while it was filled", hint="try again")


async def finish(store: Store) -> None:
    """The store is whole from here on. Until a manager takes it over it is still nobody's: another filling may begin
    anew."""
    await store.txn(Txn(puts=(Put(_MARKER, _WHOLE),)))


async def take_over(store: Store) -> None:
    """Make a store that was filled the truth, before a manager serves it. Raises ShoalError where the filling broke
    off."""
    for record in (await store.read(_MARKER)).records:
        if record.value != _WHOLE:
            raise ShoalError(
                f"the store is not whole: {record.value.decode()} into it broke off", hint="begin it again"
            )
        await store.txn(Txn((Guard(_MARKER, record.mod_revision),), deletes=(_MARKER,)))


def parts(items: Iterable[Item]) -> Iterator[list[Item]]:
    """`items` in lists that one transaction takes each."""
    part: list[Item] = []
    size = 0
    for item in items:
        size += len(item.key) + len(item.value)
        if part and (len(part) == MAX_OPS or size > _PART_BYTES):
            yield part
            part, size = [], len(item.key) + len(item.value)
        part.append(item)
    if part:
        yield part
