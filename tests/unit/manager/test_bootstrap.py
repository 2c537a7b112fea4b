"""A cluster's roots before there is a store, made once wherever it breaks off; and a manager that comes back into an
etcd that only managers get into, after its certificate ran out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from manager import bootstrap
from manager.founding import FOUNDING_FILE, Founder, roots_of
from manager.settings import Settings
from manager.store.mirror import Mirror
from manager.store.sqlite.store import SqliteStore
from shoal import defaults
from shoal.clock import SystemClock
from shoal.model.access import StoreAccess
from shoal.model.node import Availability, Role
from shoal.tls import Identity

CLOCK = SystemClock()
FOUNDER = Founder("n1", Availability.ACTIVE, defaults.CLUSTER)
DAY_NS = 24 * 3600 * 10**9


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        data_dir=tmp_path / "data",
        identity_dir=tmp_path / "identity",
        socket=tmp_path / "manager.sock",
        listen="127.0.0.1:2377",
        advertise="10.9.0.1:2377",
        log_level="info",
        founder=FOUNDER,
        store=StoreAccess(("10.9.0.1:2379",), managed=True),
    )


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[tuple[SqliteStore, Mirror]]:
    opened = await SqliteStore.open(tmp_path / "store.db", clock=CLOCK)
    mirror = Mirror()
    following = asyncio.create_task(mirror.run(opened))
    await mirror.reached(0)
    yield opened, mirror
    following.cancel()
    await opened.close()


def own(settings: Settings) -> Identity:
    identity = Identity.load(settings.identity_dir)
    assert identity is not None
    return identity


async def test_the_roots_that_were_made_are_those_that_the_store_gets(
    settings: Settings, store: tuple[SqliteStore, Mirror]
) -> None:
    bootstrap.begin(settings, FOUNDER, CLOCK.now_ns())
    first = own(settings)
    assert (first.role, first.addresses) == (Role.MANAGER, ("10.9.0.1",))
    roots = await roots_of(*store, settings.data_dir, FOUNDER, CLOCK)
    cluster = store[1].cluster
    assert cluster is not None
    assert (cluster.meta.id, cluster.root_ca_pem) == (first.cluster_id, roots.authority.root_ca_pem)
    assert list(store[1].nodes) == [first.node_id]
    assert not (settings.data_dir / FOUNDING_FILE).exists()
    bootstrap.begin(settings, FOUNDER, CLOCK.now_ns())
    assert own(settings) == first


async def test_killed_before_the_identity_it_goes_on_with_the_same_roots(settings: Settings) -> None:
    bootstrap.begin(settings, FOUNDER, CLOCK.now_ns())
    first = own(settings)
    (settings.identity_dir / "identity.json").unlink()
    bootstrap.begin(settings, FOUNDER, CLOCK.now_ns())
    again = own(settings)
    assert (again.node_id, again.cluster_id, again.root_ca_pem) == (first.node_id, first.cluster_id, first.root_ca_pem)


async def test_a_certificate_that_ran_out_is_made_anew_without_the_store(
    settings: Settings, store: tuple[SqliteStore, Mirror]
) -> None:
    bootstrap.begin(settings, FOUNDER, CLOCK.now_ns())
    first = own(settings)
    await roots_of(*store, settings.data_dir, FOUNDER, CLOCK)
    later_ns = CLOCK.now_ns() + 10 * DAY_NS
    bootstrap.revive(settings, later_ns, None)
    assert own(settings) == first, "nothing to make it of yet"
    cluster = store[1].cluster
    assert cluster is not None
    bootstrap.keep_copy(settings, cluster)
    bootstrap.revive(settings, CLOCK.now_ns(), None)
    assert own(settings) == first, "it is good still"
    bootstrap.revive(settings, later_ns, None)
    revived = own(settings)
    assert revived.not_after.timestamp() * 1e9 > later_ns
    assert (revived.node_id, revived.addresses) == (first.node_id, first.addresses)
