"""What keeps hosts from becoming nodes: all of it at once, and nothing of a host that is well."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from machine.provision.judgement import judge


def faults(rack: Any, **changed: Any) -> list[str]:
    facts = {f"n{number}": rack.bare(number) for number in (1, 2, 3)} | changed
    return [f"{each.machine}: {each.what}" for each in judge(rack.inventory, facts)]


def test_bare_hosts_and_nodes_are_fit(rack: Any) -> None:
    assert faults(rack) == []
    assert faults(rack, n1=rack.node(1), n2=rack.node(2)) == []


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"root": False}, "commands do not run as root there"),
        ({"python": ""}, "it has no Python 3.11"),
        ({"architecture": "s390x"}, "its architecture is s390x"),
        ({"kernel": "5.4.0-1"}, "its kernel is 5.4.0-1"),
        ({"cgroup": ""}, "it has no cgroups"),
        ({"overlay": False}, "its kernel has no overlay"),
        ({"vxlan": False}, "its kernel makes no VXLAN"),
        ({"programs": frozenset({"ip", "flock"})}, "the program nft is missing"),
        ({"machine_id": "uninitialized"}, 'its /etc/machine-id is "uninitialized"'),
        ({"listening": frozenset({"4789/udp", "22/tcp"})}, "port 4789/udp is in use"),
        ({"free_kib": {"/opt": 100 << 10, "/var/lib": 9 << 20}}, "/opt has 100 MiB free"),
        ({"agent": "other"}, "an agent runs there that did not come from here"),
        ({"offset_s": 3600.0}, "its clock is 3600 s ahead of the others'"),
        ({"offset_s": -31.0}, "its clock is 31 s behind the others'"),
    ],
)
def test_each_reason_is_told(rack: Any, values: dict[str, Any], said: str) -> None:
    (fault,) = faults(rack, n2=rack.bare(2, **values))
    assert fault.startswith(f"n2: {said}")


def test_all_reasons_of_all_hosts_are_told_at_once(rack: Any) -> None:
    told = faults(rack, n1=rack.bare(1, python="", cgroup=""), n3=rack.bare(3, overlay=False))
    assert [each.split(":")[0] for each in told] == ["n1", "n1", "n3"]


def test_two_hosts_with_one_machine_id_are_told_apart(rack: Any) -> None:
    (fault,) = faults(rack, n3=rack.bare(3, machine_id=f"{2:032x}"))
    assert fault.startswith("n3: it has the machine-id of n2")


def test_a_kernel_that_cannot_be_asked_for_vxlan_is_no_fault(rack: Any) -> None:
    assert faults(rack, n2=rack.bare(2, vxlan=None)) == []


def test_the_ports_of_managers_are_asked_of_managers_alone(rack: Any) -> None:
    busy = frozenset({"2377/tcp"})
    assert faults(rack, n2=rack.bare(2, listening=busy)) == []
    assert faults(rack, n1=rack.bare(1, listening=busy)) == ["n1: port 2377/tcp is in use"]


def test_managers_with_etcd_need_its_program(rack: Any) -> None:
    rack.inventory = msgspec.structs.replace(rack.inventory, store="etcd")
    assert faults(rack) == ["n1: the program etcd is missing, by which managers keep their state"]


def test_nodes_of_another_cluster_are_not_taken(rack: Any) -> None:
    stranger = msgspec.structs.replace(rack.node(2).membership, cluster_id="c2")
    told = faults(rack, n1=rack.node(1), n2=rack.node(2, membership=stranger))
    assert [each.split(",")[0] for each in told] == [
        "n1: it is a node of cluster c1",
        "n2: it is a node of cluster c2",
    ]
