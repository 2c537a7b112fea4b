"""The store's two implementations beside an etcd that is spoken to without any store: writes, large ones, and a replay.

Each side writes as many records, by as many callers at once, each in a guarded transaction that is acknowledged once it
is on the disk. Rows of `keys/s` and `events/s` are better when higher.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import grpc.aio

from manager.store.base import Guard, Put, Store, Txn
from manager.store.etcd import method
from manager.store.etcd.keyspace import Keyspace
from manager.store.etcd.settings import EtcdSettings
from manager.store.etcd.store import EtcdStore
from manager.store.etcd.transaction import request_of
from manager.store.records import encode, key_for
from manager.store.sqlite.store import SqliteStore
from shoal.clock import SystemClock
from shoal.etcd.v3 import wire_pb2 as wire
from shoal.ids import new_id
from shoal.model.base import Meta
from shoal.model.task import Task
from tests import etcd
from tests.bench.row import Row, in_turns, row

WRITES = 2_000
WRITERS = 64
LARGE = 200
LARGE_OPS = 100
LARGE_WRITERS = 8
ROUNDS = 5
SCRATCH = Path("build")  # /tmp may be memory, which takes no time to sync

Write = Callable[[Txn], Awaitable[None]]
Work = Callable[[Write], Coroutine[Any, Any, None]]


def rows() -> list[Row]:
    SCRATCH.mkdir(exist_ok=True)
    with (
        asyncio.Runner() as runner,
        tempfile.TemporaryDirectory(dir=SCRATCH) as folder,
        _etcd(Path(folder)) as address,
    ):
        sqlite = runner.run(_opened(Path(folder) / "store.db"))
        try:
            found = [_beside(runner, f"store.txn_{WRITES}.vs_etcd", _small, sqlite, address)]
        finally:
            runner.run(sqlite.close())
        return [*found, *_through_etcd(runner, address)] if address else found


def _through_etcd(runner: asyncio.Runner, address: str) -> list[Row]:
    store = runner.run(_opened_etcd(address))
    try:
        small = _beside(runner, f"store.etcd.txn_{WRITES}.vs_raw", _small, store, address)
        start = runner.run(store.revision())
        large = _beside(runner, f"store.etcd.txn_{LARGE}x{LARGE_OPS}.vs_raw", _large, store, address)
        keys = row("store.etcd.large.rate", [LARGE * LARGE_OPS / large["ours"] * 1000], [], "keys/s")
        events = (ROUNDS + 1) * LARGE * LARGE_OPS
        taken = [_seconds(lambda: runner.run(_replayed(store, start, events))) for _ in range(ROUNDS)]
        replay = row("store.etcd.replay.rate", [events / each for each in taken], [], "events/s")
    finally:
        runner.run(store.close())
    return [small, large, keys, replay]


def _beside(runner: asyncio.Runner, name: str, work: Work, store: Store, address: str) -> Row:
    """`work` through the store, beside etcd where there is one."""
    channel = runner.run(_dialled(address)) if address else None
    try:
        theirs = _into_channel(channel) if channel else None
        ours, peer = in_turns(
            lambda: runner.run(work(_into(store))),
            (lambda: runner.run(work(theirs))) if theirs else None,
            ROUNDS,
        )
    finally:
        if channel is not None:
            runner.run(channel.close())
    return row(name, ours, peer, "ms")


async def _small(write: Write) -> None:
    await _written(write, WRITERS, [_creating(1) for _ in range(WRITES)])


async def _large(write: Write) -> None:
    await _written(write, LARGE_WRITERS, [_creating(LARGE_OPS) for _ in range(LARGE)])


async def _written(write: Write, writers: int, txns: list[Txn]) -> None:
    waiting = iter(txns)

    async def writer() -> None:
        for txn in waiting:
            await write(txn)

    await asyncio.gather(*(writer() for _ in range(writers)))


def _creating(count: int) -> Txn:
    """A transaction that makes so many tasks, none of which is there yet."""
    tasks = [Task(Meta(new_id()), new_id(), 1, slot=slot, node_id=new_id()) for slot in range(count)]
    puts = tuple(Put(key_for(task), encode(task)) for task in tasks)
    return Txn(tuple(Guard(put.key, 0) for put in puts), puts)


def _into(store: Store) -> Write:
    async def write(txn: Txn) -> None:
        await store.txn(txn)

    return write


def _into_channel(channel: grpc.aio.Channel) -> Write:
    """etcd itself, one transaction per request."""
    keyspace = Keyspace("/raw")
    call = channel.unary_unary(
        method.TXN.path,
        request_serializer=wire.TxnRequest.SerializeToString,
        response_deserializer=wire.TxnResponse.FromString,
    )

    async def write(txn: Txn) -> None:
        answer: wire.TxnResponse = await call(request_of([txn], keyspace))
        assert answer.succeeded

    return write


async def _replayed(store: Store, start: int, count: int) -> None:
    async with contextlib.aclosing(store.watch("/", after=start)) as watch:  # type: ignore[type-var]
        async for commit in watch:
            count -= len(commit.changes)
            if count <= 0:
                return


def _seconds(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


@contextlib.contextmanager
def _etcd(folder: Path) -> Iterator[str]:
    """The address of an etcd with one member; empty where none is installed."""
    if shutil.which("etcd") is None:
        yield ""
        return
    with etcd.running(folder) as (member,):
        yield member.client


async def _dialled(address: str) -> grpc.aio.Channel:
    channel = grpc.aio.insecure_channel(address)
    async with asyncio.timeout(30):
        await channel.channel_ready()
    return channel


async def _opened(path: Path) -> SqliteStore:
    return await SqliteStore.open(path, clock=SystemClock())


async def _opened_etcd(address: str) -> EtcdStore:
    return await EtcdStore.open(EtcdSettings((address,)), clock=SystemClock())
