"""The facts of a manager whose nodes do not answer: every one of them is a finding, none an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from manager.doctor.examine import Doctor
from manager.doctor.facts import Verdict
from manager.store.etcd.settings import EtcdSettings
from manager.store.etcd.store import EtcdStore
from manager.store.mirror import Mirror
from shoal.clock import SystemClock
from shoal.v1 import control_pb2 as wire
from tests import etcd
from tests.unit.manager.conftest import nobody_answers


async def test_it_measures_the_store_and_tells_who_does_not_answer(manager: Any) -> None:
    findings = await manager.room.doctor.examine()
    (store,) = [each for each in findings if each.check == "store"]
    assert store.verdict is Verdict.OK
    assert store.detail.startswith("sqlite, a durable write takes")
    silent = [each.detail for each in findings if each.check == "nodes"]
    assert len(silent) == 2
    assert "node w1 does not answer" in silent[1]
    # What it wrote to measure is gone again.
    assert (await manager.store.read("/doctor")).records == ()


async def test_the_call_tells_all_of_it(manager: Any) -> None:
    answer = await manager.control.ExamineCluster(wire.ExamineClusterRequest(), None)
    found = await manager.room.doctor.examine()
    assert [each.check for each in answer.findings] == [each.check for each in found]
    assert {each.verdict for each in answer.findings} <= set(wire.Verdict.values())


async def test_members_of_etcd_are_asked(tmp_path: Path) -> None:
    with etcd.running(tmp_path) as (member,):
        clock = SystemClock()
        store = await EtcdStore.open(EtcdSettings((member.client,)), clock=clock)
        doctor = Doctor(
            store, Mirror(), channel_to=nobody_answers, leader=lambda: "m1", file=tmp_path / "none", clock=clock
        )
        findings = {each.check: each for each in await doctor.examine()}
        await store.close()
    assert findings["members"].detail == "all 1 of etcd are well"
    assert findings["store"].detail.startswith("etcd, a durable write takes")
    assert "MiB" in findings["store"].detail
