"""A cluster made again of its backup: the same one, with one manager, or nothing at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from manager import recovery
from manager.access import open_store
from manager.audit.chain import PREFIX
from manager.ca import passphrase
from manager.founding import first_node
from manager.recovery import Place, alone, become_alone, move, restore
from manager.store.backup import packed, take_over
from manager.store.base import Put, Record, Txn
from manager.store.records import decode, encode, key_for
from manager.store.sqlite.store import SqliteStore
from shoal.backup import Header
from shoal.clock import SystemClock
from shoal.codec import unpack
from shoal.errors import Conflict, InvalidArgument, NotFound, ShoalError
from shoal.model.access import StoreAccess
from shoal.model.audit import AuditEntry
from shoal.model.cluster import Cluster
from shoal.model.node import Availability, ManagerStatus, Node, NodeState, Role
from shoal.recovery import Secrets
from shoal.tls import Identity
from tests import etcd
from tests.unit.manager.conftest import Parts, node

PASSPHRASE = "correct horse battery"
PROGRAM = [sys.executable, "-c", "from shoal.__main__ import manager; manager()"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(recovery.__file__).parents[1])}


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[str]:
    """Of an etcd that is ours alone."""
    with etcd.running(tmp_path) as (member,):
        yield member.client


async def taken(manager: Parts, path: Path, *, sealed: bool = True) -> Path:
    seal = passphrase.locked_with(PASSPHRASE, manager.seal.key) if sealed else None
    header = Header("c1", 0, 1, "sqlite", "0.1.0", seal=seal)
    path.write_bytes(b"".join([data async for data in packed(manager.store, header)]))
    return path


async def restored(file: Path, **how: Any) -> None:
    own = first_node("n9", Availability.ACTIVE, SystemClock().now_ns())
    await restore(place(file.parent, **how), file, own=own, address="10.9.0.9", clock=SystemClock())


def place(folder: Path, **secrets: Any) -> Place:
    return Place(folder / "data", folder / "identity", Secrets(**secrets))


async def records(data: Path) -> dict[str, Record]:
    store = await SqliteStore.open(data / "store.db", clock=SystemClock())
    try:
        await take_over(store)
        return {record.key: record for record in (await store.read("/")).records}
    finally:
        await store.close()


async def test_everything_is_there_and_this_host_is_its_manager(manager: Parts, tmp_path: Path) -> None:
    await manager.store.txn(Txn(puts=(Put("/claim/service/web", b"s1"),)))
    before = {record.key: record.value for record in (await manager.store.read("/")).records}
    file = await taken(manager, tmp_path / "backup")
    await restored(file, passphrase=PASSPHRASE)
    found = await records(tmp_path / "data")
    assert (tmp_path / "data/seal.key").read_bytes() == manager.seal.key
    assert {key: found[key].value for key in ("/cluster/c1", "/node/w1", "/claim/service/web")} == {
        key: before[key] for key in ("/cluster/c1", "/node/w1", "/claim/service/web")
    }
    (own,) = (decode(found[key]) for key in found.keys() - before.keys() if key.startswith("/node/"))
    assert isinstance(own, Node)
    (line,) = (unpack(AuditEntry, found[key].value) for key in found if key.startswith(PREFIX))
    assert (line.actor, line.verb) == (f"root of n9 ({own.meta.id})", "swarm restore")
    assert (own.spec.role, own.description.hostname) == (Role.MANAGER, "n9")
    nodes = [decode(found[key]) for key in found if key.startswith("/node/")]
    assert [each for each in nodes if isinstance(each, Node) and each.spec.role is Role.MANAGER] == [own]
    identity = Identity.load(tmp_path / "identity")
    assert identity is not None
    assert (identity.node_id, identity.cluster_id, identity.addresses) == (own.meta.id, "c1", ("10.9.0.9",))


async def test_the_seal_may_come_by_itself(manager: Parts, tmp_path: Path) -> None:
    file = await taken(manager, tmp_path / "backup", sealed=False)
    await restored(file, seal=manager.seal.key)
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
        await restored(file, **how)
    assert not (tmp_path / "data").exists()


async def test_a_damaged_backup_is_refused_before_anything_is_written(manager: Parts, tmp_path: Path) -> None:
    file = await taken(manager, tmp_path / "backup")
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InvalidArgument, match="cut off"):
        await restored(file, passphrase=PASSPHRASE)
    assert not (tmp_path / "data").exists()


def test_of_nodes_that_a_lost_manager_held_nobody_knows_how_they_are() -> None:
    """They are called, then: those that are thought to be ready would be found dead in the end, and their tasks go."""
    held, own_held, down = node("w1"), node("w2"), node("w3", state=NodeState.DOWN)
    held = msgspec.structs.replace(held, status=msgspec.structs.replace(held.status, manager_id="m2"))
    own_held = msgspec.structs.replace(own_held, status=msgspec.structs.replace(own_held.status, manager_id="m1"))
    (changed,) = alone([node("m1", Role.MANAGER), held, own_held, down], "m1", 1)
    assert (changed.meta.id, changed.status.state, changed.status.manager_id) == ("w1", NodeState.UNKNOWN, "")
    assert changed.spec == held.spec


async def test_a_thousand_nodes_change_as_one_does(tmp_path: Path) -> None:
    lost = [node(f"w{number}") for number in range(1000)]
    lost = [
        msgspec.structs.replace(each, status=msgspec.structs.replace(each.status, manager_id="m2")) for each in lost
    ]
    await _fill(tmp_path / "data", node("m1", Role.MANAGER), *lost)
    await become_alone(place(tmp_path), "m1", SystemClock())
    found = [decode(record) for record in (await records(tmp_path / "data")).values()]
    assert sum(isinstance(each, Node) and each.status.state is NodeState.UNKNOWN for each in found) == 1000


def test_other_managers_are_workers_and_nothing_else_changes() -> None:
    own, other, worker = node("m1", Role.MANAGER), node("m2", Role.MANAGER), node("w1")
    other = msgspec.structs.replace(other, manager=ManagerStatus("10.0.0.2:2377", "a1"))
    (changed,) = alone([own, other, worker], "m1", 1)
    assert (changed.meta.id, changed.spec.role, changed.manager) == ("m2", Role.WORKER, ManagerStatus())
    assert changed.status.state is NodeState.UNKNOWN
    assert alone([own, changed, worker], "m1", 1) == []


async def test_a_manager_becomes_the_only_one_from_its_own_data(tmp_path: Path) -> None:
    own, other, worker = node("m1", Role.MANAGER), node("m2", Role.MANAGER), node("w1")
    await _fill(tmp_path / "data", own, other, worker)
    await become_alone(place(tmp_path), "m1", SystemClock())
    await become_alone(place(tmp_path), "m1", SystemClock())
    found = await records(tmp_path / "data")
    roles = {key: found_node.spec.role for key in found if isinstance(found_node := decode(found[key]), Node)}
    assert roles == {"/node/m1": Role.MANAGER, "/node/m2": Role.WORKER, "/node/w1": Role.WORKER}
    with pytest.raises(NotFound, match="node gone is not in the store"):
        await become_alone(place(tmp_path), "gone", SystemClock())


async def test_state_moves_to_etcd_and_back(tmp_path: Path, endpoint: str) -> None:
    await _fill(tmp_path / "data", node("m1", Role.MANAGER), node("w1"))
    before = {key: record.value for key, record in (await records(tmp_path / "data")).items()}
    there = StoreAccess((endpoint,), prefix="/here")
    await move(place(tmp_path, store=there), SystemClock())
    # Nobody took it over: whatever broke off meanwhile, the next try begins anew.
    await move(place(tmp_path, store=there), SystemClock())
    store = await open_store(there, tmp_path, tmp_path, SystemClock())
    await take_over(store)
    assert {record.key: record.value for record in (await store.read("/")).records} == before
    with pytest.raises(Conflict, match="is not empty"):
        await move(place(tmp_path, store=there), SystemClock())
    await store.txn(Txn(puts=(Put("/claim/service/new", b"s1"),)))
    await store.close()
    await move(place(tmp_path, source=there), SystemClock())
    after = {key: record.value for key, record in (await records(tmp_path / "data")).items()}
    assert after == before | {"/claim/service/new": b"s1"}
    assert (tmp_path / "data/store.db.moved").exists()


async def test_killed_half_way_a_migration_leaves_the_old_store_the_truth(tmp_path: Path, endpoint: str) -> None:
    await _fill(tmp_path / "data", node("m1", Role.MANAGER), *(node(f"w{number}") for number in range(5_000)))
    there = StoreAccess((endpoint,))
    words = ["migrate", "--data-dir", str(tmp_path / "data"), "--identity-dir", str(tmp_path / "identity")]
    target = await open_store(there, tmp_path, tmp_path, SystemClock())
    with subprocess.Popen(
        [*PROGRAM, *words], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, env=ENVIRONMENT
    ) as process:
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(Secrets(store=there)))
        process.stdin.close()
        while process.poll() is None and not (await target.read("/filling")).records:
            pass
        process.kill()
    with pytest.raises(ShoalError, match="a migration into it broke off"):
        await take_over(target)
    assert len(await records(tmp_path / "data")) == 5_001
    await move(place(tmp_path, store=there), SystemClock())
    await take_over(target)
    assert len((await target.read("/")).records) == 5_001
    await target.close()


async def test_a_store_that_several_managers_use_does_not_move(tmp_path: Path) -> None:
    await _fill(tmp_path / "data", node("m1", Role.MANAGER), node("m2", Role.MANAGER))
    with pytest.raises(Conflict, match="2 managers use the store"):
        await move(place(tmp_path, store=StoreAccess(("127.0.0.1:1",))), SystemClock())


async def _fill(data: Path, *nodes: Node) -> None:
    data.mkdir()
    store = await SqliteStore.open(data / "store.db", clock=SystemClock())
    puts = [Put(key_for(each), encode(each)) for each in nodes]
    await store.txn_many([Txn(puts=tuple(puts[at : at + 100])) for at in range(0, len(puts), 100)])
    await store.close()


async def test_killed_half_way_the_store_is_nobodys_and_the_next_try_makes_it_whole(
    manager: Parts, tmp_path: Path
) -> None:
    for group in range(100):
        puts = tuple(Put(f"/claim/{group}/{number}", os.urandom(500)) for number in range(100))
        await manager.store.txn(Txn(puts=puts))
    file = await taken(manager, tmp_path / "backup")
    data = tmp_path / "data"
    argv = [*PROGRAM, "restore", "--file", str(file), "--data-dir", str(data)]
    argv += ["--identity-dir", str(tmp_path / "identity"), "--node-name", "n9"]
    secrets = json.dumps({"seal": b64encode(manager.seal.key).decode()}).encode()
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, env=ENVIRONMENT) as process:
        assert process.stdin is not None
        process.stdin.write(secrets)
        process.stdin.close()
        while process.poll() is None and not _has_records(data / "store.db-wal"):
            pass
        process.kill()
    with pytest.raises(ShoalError, match="not whole: a restore into it broke off"):
        await records(data)
    done = subprocess.run(argv, input=secrets, env=ENVIRONMENT, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert len(await records(data)) == 10_006  # with the line of the audit record, and its head


def _has_records(log: Path) -> bool:
    """Far more than the schema and the marker."""
    return log.exists() and log.stat().st_size > 300_000
