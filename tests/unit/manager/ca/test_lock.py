"""The seal on the disk: it follows what the cluster says, and opens with one key whoever is killed when."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from manager.ca.authority import Seal
from manager.ca.lock import Lock, UnlockKey, relocked, unlock_key_of
from shoal.errors import InvalidArgument, PermissionDenied
from shoal.model.base import Meta
from shoal.model.cluster import Cluster, ClusterSpec

OPEN = Cluster(Meta("c1"), ClusterSpec(autolock=False))
LOCKED = Cluster(Meta("c1"), ClusterSpec(autolock=True))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "seal.key"


@pytest.fixture
def seal(path: Path) -> Seal:
    return Seal.create(path)


def key_in(cluster: Cluster, seal: Seal) -> UnlockKey:
    key = unlock_key_of(cluster, seal)
    assert key is not None
    return key


def test_with_autolock_the_disk_holds_nothing_that_opens(path: Path, seal: Seal) -> None:
    cluster = relocked(LOCKED, seal)
    key = key_in(cluster, seal)
    Lock(path).follow(cluster, seal)
    assert seal.key not in path.read_bytes()
    assert key.key not in path.read_bytes()
    lock = Lock(path)
    assert lock.locked
    for wrong in (None, UnlockKey.new()):
        with pytest.raises(PermissionDenied, match="invalid key provided"):
            lock.open(wrong)
    assert lock.open(UnlockKey.parse(key.text)).key == seal.key


def test_without_autolock_it_is_as_it_was(path: Path, seal: Seal) -> None:
    lock = Lock(path)
    locked = relocked(LOCKED, seal)
    lock.follow(locked, seal)
    opened = relocked(msgspec.structs.replace(locked, spec=OPEN.spec), seal)
    assert opened.sealed_unlock_key == b""
    lock.follow(opened, seal)
    assert not lock.locked
    assert Lock(path).open().key == seal.key


def test_a_key_stays_until_it_is_rotated(seal: Seal) -> None:
    cluster = relocked(LOCKED, seal)
    assert relocked(cluster, seal) is cluster
    rotated = relocked(cluster, seal, rotate=True)
    assert not key_in(rotated, seal).same(key_in(cluster, seal))


def test_killed_before_it_followed_a_rotation_the_key_before_opens(path: Path, seal: Seal) -> None:
    before = relocked(LOCKED, seal)
    Lock(path).follow(before, seal)
    after = relocked(before, seal, rotate=True)  # written to the store; then the manager dies
    lock = Lock(path)
    with pytest.raises(PermissionDenied):
        lock.open(key_in(after, seal))
    lock.follow(after, lock.open(key_in(before, seal)))
    again = Lock(path)
    with pytest.raises(PermissionDenied):
        again.open(key_in(before, seal))
    assert again.open(key_in(after, seal)).key == seal.key


def test_a_file_that_is_right_is_not_written_again(path: Path, seal: Seal) -> None:
    cluster, lock = relocked(LOCKED, seal), Lock(path)
    lock.follow(cluster, seal)
    before = path.stat().st_ino
    lock.follow(cluster, seal)
    again = Lock(path)
    again.follow(cluster, again.open(key_in(cluster, seal)))
    assert path.stat().st_ino == before


def test_what_can_be_no_key_is_told_as_that(seal: Seal) -> None:
    for text in ("", "SHKEY-1-", "SWMKEY-1-" + "A" * 43, UnlockKey.new().text + "A"):
        with pytest.raises(InvalidArgument, match="malformed"):
            UnlockKey.parse(text)
    assert "SHKEY-1-***" in repr(UnlockKey.new())
