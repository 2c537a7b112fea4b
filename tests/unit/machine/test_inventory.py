"""machines.yaml: what it may say, and that every error names file, line and key."""

from __future__ import annotations

import pytest

from machine.inventory import parse
from machine.model import Inventory, Order, Role
from shoal.errors import InvalidArgument


def read(text: str) -> Inventory:
    return parse(text.encode(), "m.yaml")


WHOLE = """\
cluster: {store: etcd}
defaults:
  labels: {zone: a, rack: none}
  ssh: {user: ann, port: 2200, identity: [k1, k2], jump: bastion}
groups:
  rack1: {labels: {rack: "1"}, ssh: {port: 2201}}
  managers: {role: manager, ssh: {port: 2202}}
hosts:
  - {name: n1, address: 10.0.0.1, groups: [rack1, managers], advertise: 10.1.0.1}
  - {name: n2, address: n2.example.org, labels: {disk: ssd, zone: b}, ssh: {user: bob, jump: none}}
"""


def test_a_host_has_its_own_else_its_last_groups_else_the_defaults() -> None:
    first, second = read(WHOLE).machines
    assert (first.role, first.advertise, first.reached_at) == (Role.MANAGER, "10.1.0.1", "10.1.0.1")
    assert first.labels == {"zone": "a", "rack": "1"}
    assert (first.ssh.user, first.ssh.port, first.ssh.identities, first.ssh.jump) == (
        "ann",
        2202,
        ("k1", "k2"),
        "bastion",
    )
    assert second.role is Role.WORKER
    assert second.labels == {"zone": "b", "rack": "none", "disk": "ssd"}
    assert (second.ssh.user, second.ssh.port, second.ssh.jump) == ("bob", 2200, "none")


def test_the_first_manager_founds_the_cluster() -> None:
    hosts = "hosts: [{name: a, address: a}, {name: b, address: b, role: manager}]"
    assert read(hosts).founder.name == "b"


def test_a_host_with_a_driver_is_ordered_and_has_no_address_yet() -> None:
    found = read("hosts: [{name: a, driver: local, role: manager, options: {cpus: 1.5}}, {name: b, driver: x}]")
    assert [each.address for each in found.machines] == ["", ""]
    assert found.orders == {"a": Order("local", {"cpus": "1.5"}), "b": Order("x")}


def test_scalars_are_texts_and_not_what_yaml_guesses() -> None:
    text = "hosts: [{name: on, address: n1, role: manager, labels: {up: yes, at: 12:30}}]"
    (machine,) = read(text).machines
    assert (machine.name, machine.labels) == ("on", {"up": "yes", "at": "12:30"})


ONE = "hosts:\n  - name: n1\n    address: 10.0.0.1\n    role: manager\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "m.yaml is empty"),
        ("hosts: [", "m.yaml:1:"),
        ("host: []", "m.yaml:1: host is not known; known are cluster, defaults, groups, hosts"),
        ("cluster: {}", "m.yaml:1: the document has no hosts"),
        ("hosts: 3", "m.yaml:1: hosts is not a list"),
        (ONE + "    port: 22\n", "m.yaml:5: hosts[0].port is not known"),
        (ONE + "    ssh: {port: 99999}\n", 'm.yaml:5: hosts[0].ssh.port is "99999"; a port is a number'),
        (ONE + "    role: worker\n", "m.yaml:5: hosts[0].role is there twice"),
        (ONE + "    driver: local\n", "m.yaml:3: hosts[0].address is for driver local to say"),
        (ONE + "    options: {a: b}\n", "hosts[0].options is for hosts that a driver makes; say driver: NAME"),
        (ONE + "  - {name: n2, driver: ssh}\n", "m.yaml:5: hosts[1].driver is ssh, which makes no host"),
        (ONE + "  - {name: n2}\n", "m.yaml:5: hosts[1] has no address"),
        (ONE + "  - {name: n1, address: b}\n", "m.yaml:5: hosts[1] is n1, as hosts[0] is already"),
        (ONE + "  - {name: n2, address: 10.0.0.1}\n", "m.yaml:5: hosts[1] is 10.0.0.1 port 22"),
        (ONE + "  - {name: ../x, address: b}\n", 'm.yaml:5: hosts[1].name is "../x"'),
        (ONE + '  - {name: n2, address: "-oProxyCommand=x"}\n', "m.yaml:5: hosts[1].address is"),
        (ONE + "  - {name: n2, address: b, groups: [g]}\n", 'm.yaml:5: hosts[1].groups[0] names the group "g"'),
        (ONE + "  - {name: n2, address: b, role: boss}\n", 'm.yaml:5: hosts[1].role is "boss"; a role is'),
        (ONE + "  - {name: n2, address: b, role: manager}\n", "m.yaml:2: hosts has 2 managers, and sqlite"),
        (ONE + "cluster: {store: redis}\n", 'm.yaml:5: cluster.store is "redis"'),
        ("hosts: [{name: n1, address: a}]", "m.yaml:1: hosts has no manager"),
        ("hosts: [{name: n1, address: a, ssh: {host_key: MD5:00}}]", "hosts[0].ssh.host_key is"),
        ("defaults: &x {}\nhosts: *x", "m.yaml uses a YAML alias"),
    ],
)
def test_what_is_wrong_is_told_with_file_line_and_key(text: str, said: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        read(text)
    assert said in str(caught.value)
