"""A process that writes to a store as fast as it can, from many tasks, and prints every revision it was promised.

Run as `writer.py IMPLEMENTATION PLACE`; it ends by being killed.
"""

import asyncio
import os
import sys
from pathlib import Path

from manager.store.base import Put, Store, Txn
from manager.store.sqlite.store import SqliteStore
from shoal.clock import SystemClock


async def open_store(implementation: str, place: str) -> Store:
    assert implementation == "sqlite"
    return await SqliteStore.open(Path(place), clock=SystemClock())


async def write(store: Store, writer: int) -> None:
    number = 0
    while True:
        number += 1
        key = f"/{os.getpid()}/{writer}/{number}"
        revision = await store.txn(Txn(puts=(Put(key, str(number).encode()), Put(f"/last/{writer}", key.encode()))))
        print(revision, key, flush=True)


async def main() -> None:
    store = await open_store(*sys.argv[1:])
    print("open", flush=True)
    await asyncio.gather(*(write(store, writer) for writer in range(8)))


if __name__ == "__main__":
    asyncio.run(main())
