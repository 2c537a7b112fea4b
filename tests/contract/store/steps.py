"""What tests of a store do again and again."""

import asyncio

from manager.store.base import Change, Commit, Guard, Put, Txn


def put(key: str, value: bytes = b"x", *, guard: int | None = None, lease: int = 0) -> Txn:
    guards = () if guard is None else (Guard(key, guard),)
    return Txn(guards, (Put(key, value, lease),))


async def take(watch, count: int) -> list[Commit]:
    async with asyncio.timeout(60):
        return [await anext(watch) for _ in range(count)]


async def take_changes(watch, count: int) -> list[Change]:
    """At least so many; transactions that came at once may have shared a revision."""
    changes: list[Change] = []
    while len(changes) < count:
        changes += (await take(watch, 1))[0].changes
    return changes
