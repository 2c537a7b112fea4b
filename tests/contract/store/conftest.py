"""Every implementation of the store's port, by name: the suite runs once with each, and with etcd once for each way in.

One etcd serves a whole session; each test has a prefix of its own in it. Its time is real, so leases are short.
"""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Protocol

import msgspec
import pytest

from manager.store.base import Store
from manager.store.etcd.settings import EtcdSettings
from manager.store.etcd.store import EtcdStore
from manager.store.sqlite.store import SqliteStore
from shoal.clock import ManualClock, SystemClock
from tests import etcd
from tests.contract.store.access import with_certificates, with_password
from tests.etcd import Member
from tests.link import Link, linked

OpenStore = Callable[[], Awaitable[Store]]
_prefixes = (f"/test-{os.getpid()}-{number}" for number in itertools.count())


class Passing(Protocol):
    """Time as leases see it: `almost` one lease's, and what is `over` it together with that."""

    lease_s: float

    async def almost(self) -> None: ...

    async def over(self) -> None: ...


class Jumping:
    lease_s = 10.0

    def __init__(self) -> None:
        self.clock = ManualClock()

    async def almost(self) -> None:
        await self.clock.advance(9.9)

    async def over(self) -> None:
        await self.clock.advance(0.2)


class Waiting:
    lease_s = 2.0
    clock = SystemClock()

    async def almost(self) -> None:
        await asyncio.sleep(1)

    async def over(self) -> None:
        await asyncio.sleep(1.1)


@pytest.fixture(scope="session")
def plain_etcd(tmp_path_factory) -> Iterator[EtcdSettings]:
    with etcd.running(tmp_path_factory.mktemp("etcd")) as (member,):
        yield EtcdSettings((member.client,))


@pytest.fixture(scope="session")
def tls_etcd(tmp_path_factory) -> Iterator[EtcdSettings]:
    with with_certificates(tmp_path_factory.mktemp("etcd-tls")) as access:
        yield access


@pytest.fixture(scope="session")
def password_etcd(tmp_path_factory) -> Iterator[EtcdSettings]:
    with with_password(tmp_path_factory.mktemp("etcd-password")) as (_, access):
        yield access


@pytest.fixture(params=["sqlite", "etcd", "etcd-tls", "etcd-password"])
def implementation(request) -> str:
    return request.param


@pytest.fixture
def settings(implementation: str, request) -> EtcdSettings | None:
    """None for what is no etcd."""
    fixture = {"etcd": "plain_etcd", "etcd-tls": "tls_etcd", "etcd-password": "password_etcd"}.get(implementation)
    if fixture is None:
        return None
    return msgspec.structs.replace(request.getfixturevalue(fixture), prefix=next(_prefixes))


@pytest.fixture
def passing(implementation: str) -> Passing:
    return Jumping() if implementation == "sqlite" else Waiting()


@pytest.fixture
async def reopen(settings: EtcdSettings | None, tmp_path: Path, passing: Passing) -> AsyncIterator[OpenStore]:
    """Opens the same store again, after closing the one before."""
    opened: list[Store] = []

    async def open_again() -> Store:
        while opened:
            await opened.pop().close()
        if settings is None:
            opened.append(await SqliteStore.open(tmp_path / "store.db", clock=passing.clock))
        else:
            opened.append(await EtcdStore.open(settings, clock=passing.clock))
        return opened[-1]

    yield open_again
    while opened:
        await opened.pop().close()


@pytest.fixture
async def store(reopen: OpenStore) -> Store:
    return await reopen()


@pytest.fixture
async def start(store: Store) -> int:
    """The revision before the test does anything."""
    return (await store.read("/")).revision


@pytest.fixture
def member(tmp_path) -> Iterator[Member]:
    """An etcd that the test may break."""
    with etcd.running(tmp_path) as (one,):
        yield one


@pytest.fixture
def members(tmp_path) -> Iterator[list[Member]]:
    with etcd.running(tmp_path, count=3) as three:
        yield three


@pytest.fixture
async def link(member) -> AsyncIterator[Link]:
    """The way to `member`, which the test may break."""
    async with linked(member.client) as way:
        yield way
