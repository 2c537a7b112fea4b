"""Backups by schedule: on the disk when they say so, no more than are to be kept, and told when they fail."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from manager.backups import Backups, name_of, surplus
from manager.ca.escrow import opened
from shoal.backup import examined
from shoal.clock import ManualClock
from shoal.codec import to_wire
from shoal.model.base import Meta
from shoal.model.cluster import Cluster
from shoal.recovery import Secrets
from shoal.v1 import control_pb2 as wire
from shoal.v1 import types_pb2
from tests.unit.manager.conftest import Parts

CLUSTER = Cluster(Meta("c1c1c1c1c1c1c1"))
HOUR_S = 3600


class Place(msgspec.Struct):
    manager: Parts
    clock: ManualClock
    folder: Path
    leads: bool = True

    async def update(self, **spec: Any) -> None:
        cluster = self.manager.mirror.cluster
        assert cluster is not None
        changed = msgspec.structs.replace(cluster, spec=msgspec.structs.replace(cluster.spec, **spec))
        from manager.api.room import writing

        await self.manager.room.write(writing(changed))

    async def until(self, question: Any) -> None:
        """Let the clock run until it is so: the store and the disk take time of their own."""
        async with asyncio.timeout(60):
            while not question():
                await self.clock.advance(1)
                await asyncio.sleep(0.01)

    @property
    def status(self) -> Any:
        assert self.manager.mirror.cluster is not None
        return self.manager.mirror.cluster.backup

    def files(self) -> list[Path]:
        return sorted(self.folder.iterdir())


@pytest.fixture
async def place(manager: Parts, tmp_path: Path) -> AsyncIterator[Place]:
    made = Place(manager, ManualClock(), tmp_path / "backups")
    backups = Backups(
        manager.store, manager.mirror, manager.seal, own_id="m1", leads=lambda: made.leads, clock=made.clock
    )
    running = asyncio.create_task(backups.run())
    yield made
    assert not running.done()
    running.cancel()


async def test_they_are_taken_and_no_more_kept_than_were_asked_for(place: Place) -> None:
    (place.folder).mkdir()
    (place.folder / "somebody else's").write_text("stays")
    await place.update(backup_schedule="1h", backup_dir=str(place.folder), backup_keep=2)
    seen: set[int] = set()
    for _ in range(4):
        await place.until(lambda: place.status.taken_at_ns not in seen | {0})
        seen.add(place.status.taken_at_ns)
        assert Path(place.status.path).exists()
        assert place.status.error == ""
        await place.clock.advance(HOUR_S)
    times = sorted(seen)
    assert all(after - before >= HOUR_S * 10**9 for before, after in itertools.pairwise(times))
    kept = [each for each in place.files() if each.suffix == ".backup"]
    assert 1 <= len(kept) <= 3
    assert all(examined(each).kinds["node"] == 2 for each in kept)
    assert (place.folder / "somebody else's").exists()


async def test_they_open_with_the_passphrase_that_was_chosen_for_them(place: Place) -> None:
    assert place.manager.mirror.cluster is not None
    spec = msgspec.structs.replace(place.manager.mirror.cluster.spec, backup_schedule="1h", backup_keep=2)
    spec = msgspec.structs.replace(spec, backup_dir=str(place.folder))
    asked = wire.UpdateClusterRequest(spec=to_wire(spec, types_pb2.ClusterSpec))
    answer = await place.manager.control.UpdateCluster(asked, None)
    assert "--backup-passphrase-file" in answer.warnings[0]
    asked.backup_passphrase = "correct horse battery"
    answer = await place.manager.control.UpdateCluster(asked, None)
    assert (list(answer.warnings), answer.cluster.escrow) == ([], b"")
    await place.until(lambda: place.status.taken_at_ns)
    newest = examined(Path(place.status.path)).header
    assert opened(newest, Secrets(passphrase="correct horse battery")).key == place.manager.seal.key


async def test_a_failure_is_written_down_and_nothing_half_counts(place: Place) -> None:
    place.folder.write_text("a file where the directory should be")
    await place.update(backup_schedule="1h", backup_dir=str(place.folder), backup_keep=2)
    await place.until(lambda: place.status.error)
    assert str(place.folder) in place.status.error
    assert (place.status.taken_at_ns, place.status.path) == (0, "")
    place.folder.unlink()
    await place.until(lambda: place.status.taken_at_ns)
    assert place.status.error == ""
    (taken,) = place.files()
    assert examined(taken).records >= 3


async def test_what_a_killed_leader_left_is_swept(place: Place) -> None:
    place.folder.mkdir()
    assert place.manager.mirror.cluster is not None
    left = place.folder / (name_of(place.manager.mirror.cluster, 0) + ".part")
    left.write_bytes(b"half")
    await place.update(backup_schedule="1h", backup_dir=str(place.folder), backup_keep=2)
    await place.until(lambda: place.status.taken_at_ns)
    assert not left.exists()


async def test_who_does_not_lead_takes_none(place: Place) -> None:
    place.leads = False
    await place.update(backup_schedule="1h", backup_dir=str(place.folder), backup_keep=2)
    await place.clock.advance(10)
    assert not place.folder.exists()


def test_only_this_clusters_oldest_are_too_many() -> None:
    names = [name_of(CLUSTER, day * 86_400 * 10**9) for day in range(5)]
    other = name_of(Cluster(Meta("c2c2c2c2c2c2c2")), 0)
    assert surplus(CLUSTER, [*reversed(names), other, "notes.txt"], 2) == names[:3]
    assert surplus(CLUSTER, names, 0) == names[:4]
    assert surplus(CLUSTER, names, 9) == []
