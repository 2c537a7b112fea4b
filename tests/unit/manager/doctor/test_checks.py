"""A cluster that is well has no finding to act on; each thing that is wrong has its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from manager.doctor.checks import CHECKS, diagnose
from manager.doctor.facts import Facts, Finding, HostFacts, StoreFacts, Verdict
from manager.store.presence import Presence
from manager.store.view import View
from shoal import defaults
from shoal.model.base import Meta
from shoal.model.cluster import BackupStatus, Cluster
from shoal.model.network import Lease, Network, NetworkScope, NetworkSpec
from shoal.model.node import CertificateInfo, NodeState, Role
from shoal.model.service import Service, ServiceSpec
from shoal.model.task import Task, TaskState, TaskStatus
from tests.unit.manager.conftest import NOW, node

HOUR_NS = 3600 * defaults.SECOND_NS
GIB = 1 << 30
replace = msgspec.structs.replace


class Patient:
    """A cluster of one manager and two workers that is well, until a test does something to it."""

    def __init__(self) -> None:
        self.view = View()
        spec = replace(defaults.CLUSTER, backup_schedule="6h", backup_dir="/b")
        self.view.put(Cluster(Meta("c1"), spec, backup=BackupStatus(NOW - HOUR_NS, "/b/x", 1000, "m1"), escrow=b"e"))
        self.view.put(Presence(Meta("m1"), "10.9.0.1:2377"))
        self.store = StoreFacts("sqlite", "", 0.004, 1 << 20)
        self.leader = "m1"
        self.hosts: dict[str, HostFacts] = {}
        for each in (node("m1", Role.MANAGER), node("w1"), node("w2")):
            self.describe(each, agent_version="1.0", certificate=CertificateInfo(not_after_ns=NOW + 12 * HOUR_NS))
            self.hosts[each.meta.id] = HostFacts(
                ahead_s=0.01, doubt_s=0.002, disk_bytes=100 * GIB, disk_free_bytes=50 * GIB, machine_id=each.meta.id
            )

    def describe(self, each: Any, **description: Any) -> None:
        self.view.put(replace(each, description=replace(each.description, **description)))

    def host(self, id: str, **facts: Any) -> None:
        self.hosts[id] = replace(self.hosts[id], **facts)

    def wrong(self) -> list[Finding]:
        facts = Facts(NOW, "1.0", self.leader, self.store, self.hosts)
        return [each for each in diagnose(self.view, facts) if each.verdict > Verdict.NOTE]


@pytest.fixture
def patient() -> Patient:
    return Patient()


def test_who_is_well_is_told_what_was_looked_at(patient: Patient) -> None:
    facts = Facts(NOW, "1.0", patient.leader, patient.store, patient.hosts)
    findings = diagnose(patient.view, facts)
    assert {each.verdict for each in findings} == {Verdict.OK}
    assert {each.check for each in findings} == {each.__name__ for each in CHECKS} | {"leader"}
    assert all(each.detail for each in findings)


def down(patient: Patient) -> None:
    found = patient.view.nodes["w1"]
    patient.view.put(replace(found, status=replace(found.status, state=NodeState.DOWN, message="silent")))


def second_manager(patient: Patient) -> None:
    found = patient.view.nodes["w1"]
    patient.view.put(replace(found, spec=replace(found.spec, role=Role.MANAGER)))


def two_managers(patient: Patient) -> None:
    second_manager(patient)
    patient.view.put(Presence(Meta("w1"), "10.9.0.2:2377"))


def no_quorum(patient: Patient) -> None:
    second_manager(patient)
    patient.store = replace(patient.store, kind="etcd")


def no_leader(patient: Patient) -> None:
    patient.leader = ""


def store(**facts: Any) -> Callable[[Patient], None]:
    def do(patient: Patient) -> None:
        patient.store = replace(patient.store, **facts)

    return do


def etcd(*ill: str) -> Callable[[Patient], None]:
    members = tuple((name, "silent" if name in ill else "") for name in ("m1", "m2", "m3"))
    return store(kind="etcd", members=members)


def host(**facts: Any) -> Callable[[Patient], None]:
    return lambda patient: patient.host("w1", **facts)


def manager_host(**facts: Any) -> Callable[[Patient], None]:
    return lambda patient: patient.host("m1", **facts)


def described(**description: Any) -> Callable[[Patient], None]:
    return lambda patient: patient.describe(patient.view.nodes["w1"], **description)


def certificate(left_ns: int) -> Callable[[Patient], None]:
    return described(certificate=CertificateInfo(not_after_ns=NOW + left_ns))


def waiting_task(patient: Patient) -> None:
    patient.view.put(Service(Meta("s1"), ServiceSpec(name="web")))
    status = TaskStatus(TaskState.PENDING, "no suitable node (2 have too little memory)", at_ns=NOW - HOUR_NS)
    for id in ("t1", "t2"):
        patient.view.put(Task(Meta(id, created_at_ns=NOW - HOUR_NS), "s1", status=status))


def backup(**status: Any) -> Callable[[Patient], None]:
    def do(patient: Patient) -> None:
        cluster = patient.view.cluster
        assert cluster is not None
        patient.view.put(replace(cluster, backup=replace(cluster.backup, **status)))

    return do


def full_network(patient: Patient) -> None:
    patient.view.put(
        Network(Meta("n1"), NetworkSpec("web", "overlay"), NetworkScope.SWARM, "10.1.0.0/26", block_prefix=29)
    )
    for number in range(6):
        patient.view.put(Lease(Meta(f"n1.w{number}"), "n1", f"w{number}", "10.1.0.8/29"))


def full_pool(patient: Patient) -> None:
    patient.view.put(Network(Meta("n1"), NetworkSpec("web", "overlay"), NetworkScope.SWARM, "10.0.0.0/8"))


@pytest.mark.parametrize(
    ("what", "check", "verdict", "told"),
    [
        (down, "nodes", Verdict.WARNING, "host-w1 is down: silent"),
        (second_manager, "managers", Verdict.WARNING, "host-w1 of 2 managers cannot be reached"),
        (two_managers, "managers", Verdict.WARNING, "there are 2 managers"),
        (no_quorum, "managers", Verdict.FAILURE, "2 are needed for any change"),
        (no_leader, "leader", Verdict.FAILURE, "nobody leads"),
        (store(trouble="no quorum"), "store", Verdict.FAILURE, "takes no writes: no quorum"),
        (store(write_s=0.5), "store", Verdict.WARNING, "takes 0.50 s"),
        (store(write_s=3.0), "store", Verdict.FAILURE, "takes 3.00 s"),
        (store(size_bytes=2 * GIB), "store", Verdict.WARNING, "has grown to 2048 MiB"),
        (etcd("m3"), "members", Verdict.WARNING, "etcd's member m3 is not well: silent"),
        (store(alarms=("no space at m1",)), "members", Verdict.FAILURE, "raises an alarm: no space at m1"),
        (host(error="refused"), "nodes", Verdict.WARNING, "cannot be called: refused"),
        (host(ahead_s=-3.0), "clocks", Verdict.WARNING, "host-w1 is 3.0 s behind"),
        (host(ahead_s=3600.0), "clocks", Verdict.FAILURE, "host-w1 is 3600.0 s ahead"),
        (certificate(HOUR_NS), "certificates", Verdict.WARNING, "runs out in 60 min"),
        (certificate(-HOUR_NS), "certificates", Verdict.FAILURE, "has run out"),
        (waiting_task, "tasks", Verdict.WARNING, "2 of service web cannot be placed: no suitable node"),
        (manager_host(disk_free_bytes=5 * GIB), "disks", Verdict.WARNING, "free on host-m1 for the store"),
        (host(disk_free_bytes=100 << 20), "disks", Verdict.FAILURE, "100 of 102400 MiB"),
        (backup(error="disk full", failed_at_ns=NOW), "backups", Verdict.FAILURE, "the last try failed: disk full"),
        (backup(taken_at_ns=NOW - 9 * HOUR_NS), "backups", Verdict.WARNING, "late"),
        (described(agent_version="0.9"), "versions", Verdict.WARNING, "the agent of host-w1 0.9"),
        (described(hostname="host-w2"), "twins", Verdict.WARNING, "2 nodes are called host-w2: w1, w2"),
        (host(machine_id="w2"), "twins", Verdict.WARNING, "host-w1, host-w2 have the same machine id"),
        (full_network, "addresses", Verdict.WARNING, "6 of the 7 blocks of network web"),
        (full_pool, "addresses", Verdict.WARNING, "100 % of the pool 10.0.0.0/8"),
    ],
    ids=lambda each: getattr(each, "__name__", None) if callable(each) else str(each)[:40],
)
def test_what_is_wrong_is_found_and_nothing_else(
    patient: Patient, what: Callable[[Patient], None], check: str, verdict: Verdict, told: str
) -> None:
    what(patient)
    (found,) = patient.wrong()
    assert (found.check, found.verdict) == (check, verdict)
    assert told in found.detail
    assert found.hint


def test_most_members_lost_is_a_failure(patient: Patient) -> None:
    etcd("m2", "m3")(patient)
    assert {each.verdict for each in patient.wrong()} == {Verdict.FAILURE}


def test_a_clock_is_only_wrong_beyond_the_doubt(patient: Patient) -> None:
    patient.host("w1", ahead_s=2.5, doubt_s=2.0)
    assert patient.wrong() == []


def test_a_task_that_was_just_created_is_no_finding(patient: Patient) -> None:
    patient.view.put(Task(Meta("t1", created_at_ns=NOW - defaults.SECOND_NS), "s1"))
    assert patient.wrong() == []


def test_backups_that_need_a_file_of_a_manager_are_a_note(patient: Patient) -> None:
    assert patient.view.cluster is not None
    patient.view.put(replace(patient.view.cluster, escrow=b""))
    findings = diagnose(patient.view, Facts(NOW, "1.0", patient.leader, patient.store, patient.hosts))
    (note,) = [each for each in findings if each.verdict is not Verdict.OK]
    assert (note.check, note.verdict) == ("backups", Verdict.NOTE)
    assert "seal.key" in note.hint


def test_no_schedule_is_a_note(patient: Patient) -> None:
    patient.view.put(Cluster(Meta("c1"), defaults.CLUSTER))
    facts = Facts(NOW, "1.0", patient.leader, patient.store, patient.hosts)
    (note,) = [each for each in diagnose(patient.view, facts) if each.verdict is not Verdict.OK]
    assert (note.check, note.verdict) == ("backups", Verdict.NOTE)
