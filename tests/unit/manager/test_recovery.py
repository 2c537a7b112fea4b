"""A cluster made again of its backup: the same one, with one manager, or nothing at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from base64 import b64encode
from pathlib import Path
from typing import Any

import msgspec
import pytest

from manager import recovery
from manager.ca import passphrase
from manager.recovery import Restore, alone, restore
from manager.store.backup import check_whole, packed
from manager.store.base import Put, Record, Txn
from manager.store.records import decode
from manager.store.sqlite import SqliteStore
from shoal.backup import Header
from shoal.clock import SystemClock
from shoal.errors import InvalidArgument, ShoalError
from shoal.model.cluster import Cluster
from shoal.model.node import Availability, ManagerStatus, Node, NodeState, Role
from tests.unit.manager.conftest import Parts, node

PASSPHRASE = "correct horse battery"


async def taken(manager: Parts, path: Path, *, sealed: bool = True) -> Path:
    seal = passphrase.locked_with(PASSPHRASE, manager.seal.key) if sealed else None
    header = Header("c1", 0, 1, "sqlite", "0.1.0", seal=seal)
    path.write_bytes(b"".join([data async for data in packed(manager.store, header)]))
    return path


def wanted(file: Path, **how: Any) -> Restore:
    return Restore(file, file.parent / "data", "n9", Availability.ACTIVE, **how)


async def records(data: Path) -> dict[str, Record]:
    store = await SqliteStore.open(data / "store.db", clock=SystemClock())
    try:
        await check_whole(store)
        return {record.key: record for record in (await store.read("/")).records}
    finally:
        await store.close()


async def test_everything_is_there_and_this_host_is_its_manager(manager: Parts, tmp_path: Path) -> None:
    await manager.store.txn(Txn(puts=(Put("/claim/service/web", b"s1"),)))
    before = {record.key: record.value for record in (await manager.store.read("/")).records}
    file = await taken(manager, tmp_path / "backup")
    await restore(wanted(file, passphrase=PASSPHRASE), SystemClock())
    found = await records(tmp_path / "data")
    assert (tmp_path / "data/seal.key").read_bytes() == manager.seal.key
    assert {key: found[key].value for key in ("/cluster/c1", "/node/w1", "/claim/service/web")} == {
        key: before[key] for key in ("/cluster/c1", "/node/w1", "/claim/service/web")
    }
    (own,) = (decode(found[key]) for key in found.keys() - before.keys())
    assert isinstance(own, Node)
    assert (own.spec.role, own.description.hostname) == (Role.MANAGER, "n9")
    nodes = [decode(found[key]) for key in found if key.startswith("/node/")]
    assert [each for each in nodes if isinstance(each, Node) and each.spec.role is Role.MANAGER] == [own]


async def test_the_seal_may_come_by_itself(manager: Parts, tmp_path: Path) -> None:
    file = await taken(manager, tmp_path / "backup", sealed=False)
    await restore(wanted(file, seal=manager.seal.key), SystemClock())
    cluster = decode((await records(tmp_path / "data"))["/cluster/c1"])
    assert isinstance(cluster, Cluster)
    assert manager.seal.unseal(cluster.sealed_ca_key, "CA key") == manager.authority.key_pem


@pytest.mark.parametrize(
    ("how", "sealed", "told"),
    [
        ({}, True, "locked with a passphrase"),
        ({}, False, "does not hold the cluster's seal"),
        ({"passphrase": PASSPHRASE}, False, "does not hold the cluster's seal"),
        ({"passphrase": "wrong horse battery"}, True, "does not open"),
        ({"seal": b"x" * 32}, True, "does not open with this manager's seal"),
        ({"seal": b"x"}, True, "has 1 bytes, not 32"),
    ],
)
async def test_without_the_right_key_nothing_is_written(
    manager: Parts, tmp_path: Path, how: dict[str, Any], sealed: bool, told: str
) -> None:
    file = await taken(manager, tmp_path / "backup", sealed=sealed)
    with pytest.raises(InvalidArgument, match=told):
        await restore(wanted(file, **how), SystemClock())
    assert not (tmp_path / "data").exists()


async def test_a_damaged_backup_is_refused_before_anything_is_written(manager: Parts, tmp_path: Path) -> None:
    file = await taken(manager, tmp_path / "backup")
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InvalidArgument, match="cut off"):
        await restore(wanted(file, passphrase=PASSPHRASE), SystemClock())
    assert not (tmp_path / "data").exists()


def test_other_managers_are_workers_and_nothing_else_changes() -> None:
    own, other, worker = node("m1", Role.MANAGER), node("m2", Role.MANAGER), node("w1")
    other = msgspec.structs.replace(other, manager=ManagerStatus("10.0.0.2:2377", "a1"))
    (changed,) = alone([own, other, worker], own)
    assert (changed.meta.id, changed.spec.role, changed.manager) == ("m2", Role.WORKER, ManagerStatus())
    assert changed.status.state is NodeState.UNKNOWN
    assert alone([own, changed, worker], own) == []


async def test_killed_half_way_the_store_is_nobodys_and_the_next_try_makes_it_whole(
    manager: Parts, tmp_path: Path
) -> None:
    for group in range(100):
        puts = tuple(Put(f"/claim/{group}/{number}", os.urandom(500)) for number in range(100))
        await manager.store.txn(Txn(puts=puts))
    file = await taken(manager, tmp_path / "backup")
    data = tmp_path / "data"
    code = "from shoal.__main__ import manager; manager()"
    argv = [sys.executable, "-c", code, "restore", "--file", str(file), "--data-dir", str(data), "--node-name", "n9"]
    secrets = json.dumps({"seal": b64encode(manager.seal.key).decode()}).encode()
    environment = {**os.environ, "PYTHONPATH": str(Path(recovery.__file__).parents[1])}
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as process:
        assert process.stdin is not None
        process.stdin.write(secrets)
        process.stdin.close()
        while process.poll() is None and not _has_records(data / "store.db-wal"):
            pass
        process.kill()
    with pytest.raises(ShoalError, match="not whole: a restore into it broke off"):
        await records(data)
    done = subprocess.run(argv, input=secrets, env=environment, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert len(await records(data)) == 10_004


def _has_records(log: Path) -> bool:
    """Far more than the schema and the marker."""
    return log.exists() and log.stat().st_size > 300_000
