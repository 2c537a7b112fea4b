"""A backup by the API: whole while the cluster writes, and no seal in it that was not asked for."""

from __future__ import annotations

import io
from typing import Any

import pytest

from manager.ca import passphrase
from shoal.backup import Decoder
from shoal.errors import InvalidArgument
from shoal.v1 import control_pb2 as wire

PASSPHRASE = "correct horse battery"


async def backup(manager: Any, **asked: Any) -> Decoder:
    stream = manager.control.BackupCluster(wire.BackupClusterRequest(**asked), None)
    return Decoder(io.BytesIO(b"".join([part.data async for part in stream])), "backup")


async def test_it_holds_every_record_and_not_the_seal(manager: Any) -> None:
    decoder = await backup(manager)
    keys = [item.key for batch in decoder.batches() for item in batch]
    assert keys == ["/audit-head", "/audit/0000000000000001", "/cluster/c1", "/node/m1", "/node/w1"]
    header = decoder.header
    assert (header.cluster_id, header.store, header.seal) == ("c1", "sqlite", None)
    assert header.revision == manager.mirror.revision


async def test_with_a_passphrase_it_holds_the_seal_for_who_knows_it(manager: Any) -> None:
    sealed = (await backup(manager, passphrase=PASSPHRASE)).header.seal
    assert sealed is not None
    assert passphrase.opened_with(PASSPHRASE, sealed) == manager.seal.key
    with pytest.raises(InvalidArgument, match="does not open"):
        passphrase.opened_with("correct horse batterx", sealed)


async def test_a_short_passphrase_is_refused(manager: Any) -> None:
    with pytest.raises(InvalidArgument, match="12 are needed"):
        await backup(manager, passphrase="secret")


async def test_a_large_backup_comes_in_small_messages(manager: Any) -> None:
    from manager.store.base import Put, Txn

    for number in range(5):
        await manager.store.txn(Txn(puts=(Put(f"/claim/{number}", bytes(900_000)),)))
    stream = manager.control.BackupCluster(wire.BackupClusterRequest(uncompressed=True), None)
    sizes = [len(part.data) async for part in stream]
    assert sum(sizes) > 4_500_000
    assert max(sizes) <= 1 << 20
