"""A backup opens with what its operator was told to keep, with nothing less, and says what is missing."""

from __future__ import annotations

import msgspec
import pytest

from manager.ca import passphrase
from manager.ca.authority import Seal
from manager.ca.escrow import carried, laid, opened
from manager.ca.lock import UnlockKey, relocked, unlock_key_of, wrapped
from shoal.backup import Header
from shoal.errors import InvalidArgument
from shoal.model.base import Meta
from shoal.model.cluster import Cluster, ClusterSpec
from shoal.recovery import Secrets

PASSPHRASE = "correct horse battery"
SEAL = Seal(bytes(range(32)))
HEADER = Header("c1", 7, 1_764_000_000 * 10**9, "etcd", "0.1.0")
PLAIN = Cluster(Meta("c1"))
LOCKED = relocked(Cluster(Meta("c1"), ClusterSpec(autolock=True)), SEAL)


def unlock_key(cluster: Cluster = LOCKED) -> UnlockKey:
    key = unlock_key_of(cluster, SEAL)
    assert key is not None
    return key


def test_a_passphrase_for_all_backups_opens_those_by_schedule() -> None:
    cluster = msgspec.structs.replace(PLAIN, escrow=laid(SEAL, PASSPHRASE))
    header = carried(HEADER, cluster, SEAL)
    assert opened(header, Secrets(passphrase=PASSPHRASE)).key == SEAL.key
    assert cluster.backups_open
    assert SEAL.key not in msgspec.json.encode(header) + msgspec.msgpack.encode(header)


def test_the_passphrase_of_one_backup_goes_before_the_one_for_all() -> None:
    cluster = msgspec.structs.replace(PLAIN, escrow=laid(SEAL, PASSPHRASE))
    own = msgspec.structs.replace(HEADER, seal=passphrase.locked_with("quite another one", SEAL.key))
    header = carried(own, cluster, SEAL)
    assert opened(header, Secrets(passphrase="quite another one")).key == SEAL.key
    with pytest.raises(InvalidArgument, match="passphrase does not open"):
        opened(header, Secrets(passphrase=PASSPHRASE))


def test_an_empty_passphrase_is_none_any_more_and_a_short_one_is_refused() -> None:
    assert laid(SEAL, "") == b""
    with pytest.raises(InvalidArgument, match="12 are needed"):
        laid(SEAL, "short")


def test_with_autolock_the_unlock_key_that_held_opens_it() -> None:
    header = carried(HEADER, LOCKED, SEAL)
    assert opened(header, Secrets(unlock_key=unlock_key().text)).key == SEAL.key
    assert SEAL.key not in msgspec.msgpack.encode(header)
    rotated = relocked(LOCKED, SEAL, rotate=True)
    with pytest.raises(InvalidArgument, match="does not open") as told:
        opened(header, Secrets(unlock_key=unlock_key(rotated).text))
    assert "2025-11-24T16:00:00+00:00" in told.value.hint


@pytest.mark.parametrize("found", [SEAL.key, wrapped(SEAL, unlock_key())])
def test_the_file_of_a_manager_opens_whatever_backup(found: bytes) -> None:
    secrets = Secrets(seal=found, unlock_key=unlock_key().text)
    assert opened(carried(HEADER, PLAIN, SEAL), secrets).key == SEAL.key


def test_a_locked_file_needs_its_key() -> None:
    locked = wrapped(SEAL, unlock_key())
    with pytest.raises(InvalidArgument, match="file is locked with the cluster's unlock key"):
        opened(HEADER, Secrets(seal=locked))
    with pytest.raises(InvalidArgument, match="does not open the seal's file"):
        opened(HEADER, Secrets(seal=locked, unlock_key=UnlockKey.new().text))


def test_what_is_missing_is_told() -> None:
    both = msgspec.structs.replace(LOCKED, escrow=laid(SEAL, PASSPHRASE))
    with pytest.raises(InvalidArgument, match="locked with a passphrase and with the unlock key"):
        opened(carried(HEADER, both, SEAL), Secrets())
    with pytest.raises(InvalidArgument, match="seal is locked with the unlock key") as told:
        opened(carried(HEADER, LOCKED, SEAL), Secrets(passphrase=PASSPHRASE))
    assert "--unlock-key-file" in told.value.hint
    with pytest.raises(InvalidArgument, match="does not hold") as told:
        opened(carried(HEADER, PLAIN, SEAL), Secrets(unlock_key=unlock_key().text))
    assert "--seal-key" in told.value.hint
