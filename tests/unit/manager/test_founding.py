"""The manager's own identity: issued once, kept valid whatever its host slept through, never brought back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from manager.ca.authority import Authority
from manager.founding import IdentityFile, keep_identity, own_identity
from manager.store.mirror import Mirror
from shoal import defaults
from shoal.clock import ManualClock
from shoal.errors import Conflict
from shoal.model.base import Meta
from shoal.model.cluster import Cluster
from shoal.model.node import Role
from shoal.tls import Identity
from tests.unit.manager.conftest import node

DAY_S = 24 * 3600


class Place(msgspec.Struct):
    mirror: Mirror
    authority: Authority
    folder: Path
    clock: ManualClock

    def own(self) -> Identity:
        return own_identity(self.mirror, lambda: self.authority, self.folder, self.clock)

    def valid(self) -> bool:
        found = Identity.load(self.folder)
        return found is not None and found.not_after.timestamp() * 1e9 > self.clock.now_ns()


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    """A founded cluster whose manager is looked after."""
    clock, mirror = ManualClock(), Mirror()
    spec = msgspec.structs.replace(defaults.CLUSTER, certificate_life_ns=DAY_S * 10**9)
    for record in (Cluster(Meta("c1"), spec), node("m1", Role.MANAGER), node("w1")):
        mirror.put(record)
    made = Place(mirror, Authority.create("c1", clock.now_ns()), tmp_path / "identity", clock)
    keeping = asyncio.create_task(keep_identity(mirror, lambda: made.authority, made.folder, clock))
    yield made
    assert not keeping.done()
    keeping.cancel()


async def test_it_is_issued_once(place: Place) -> None:
    first = place.own()
    assert (first.node_id, first.role) == ("m1", Role.MANAGER)
    assert place.own() == first


async def test_one_that_nobody_renewed_is_issued_anew_and_shown_at_once(place: Place) -> None:
    first = place.own()
    shown = IdentityFile(place.folder, first)
    await place.clock.advance(DAY_S / 2)
    assert shown.current() == first
    for _ in range(3):
        await place.clock.advance(DAY_S)
        assert place.valid()
    assert shown.current() == Identity.load(place.folder) != first


async def test_one_that_a_clock_two_days_ahead_issued_is_issued_anew_when_the_clock_is_right(place: Place) -> None:
    place.clock._start_ns += 2 * DAY_S * 10**9
    place.own()
    place.clock._start_ns -= 2 * DAY_S * 10**9
    await place.clock.advance(60)
    found = Identity.load(place.folder)
    assert found is not None
    assert found.valid_at(place.clock.now_ns())


async def test_a_host_that_leaves_is_not_made_a_member_again(place: Place) -> None:
    place.own()
    (place.folder / "identity.json").unlink()
    await place.clock.advance(2 * DAY_S)
    assert Identity.load(place.folder) is None


async def test_a_damaged_file_is_no_end(place: Place) -> None:
    place.own()
    (place.folder / "identity.json").write_bytes(b"{")
    await place.clock.advance(DAY_S)


async def test_another_clusters_identity_is_not_overwritten(place: Place) -> None:
    other = Authority.create("c2", place.clock.now_ns())
    other.new_identity(
        node_id="x", cluster_id="c2", role=Role.MANAGER, life_ns=10**13, now_ns=place.clock.now_ns()
    ).save(place.folder)
    with pytest.raises(Conflict, match="identity of another cluster"):
        place.own()
