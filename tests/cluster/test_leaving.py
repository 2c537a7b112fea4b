"""Beginning a cluster at an address, and leaving one in every way: the last manager, one of three, a worker whose
managers are away. The tests share three hosts and stand in order: each leaves them as hosts that are no members."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from tests.cluster.conftest import Lab, eventually, three_hosts

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

# Of a documentation network (RFC 5737): none of this lab's.
ELSEWHERE = "203.0.113.9"


@pytest.fixture(scope="module")
def rack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with three_hosts(f"l{os.getpid() % 10000}", tmp_path_factory.mktemp("web")) as rack:
        yield rack


def leave(rack: Lab, host: str, *flags: str) -> subprocess.CompletedProcess[str]:
    return rack.on(host, "shoal", "swarm", "leave", *flags)


def is_outside(rack: Lab, host: str) -> bool:
    """Whether nothing of a cluster is on the host."""
    inactive = rack.shoal(host, "info", "--format", "{{.Swarm.LocalNodeState}}") == "inactive"
    left = [name for name in ("shoal-manager", "^[^ ]*etcd ") if rack.pids(host, name)]
    return inactive and not left and not rack.shoal(host, "ps", "-aq")


def test_an_address_that_does_not_lead_here_is_refused(rack: Lab) -> None:
    done = rack.on("n1", "shoal", "swarm", "init", "--advertise-addr", ELSEWHERE)
    assert done.returncode == 1, done.stdout
    assert f"could not advertise {ELSEWHERE}: it is not a local address" in done.stderr
    assert f"({rack.addresses['n1']} on eth0)" in done.stderr
    assert is_outside(rack, "n1")
    refused = rack.on("n1", "shoal", "swarm", "init", "--advertise-addr", "eth7")
    assert "'eth7' is neither an IPv4 address nor a network interface" in refused.stderr


def test_an_address_that_is_forwarded_here_is_taken(rack: Lab) -> None:
    chain = f"chain out {{ type nat hook output priority -100; ip daddr {ELSEWHERE} redirect; }}"
    assert rack.on("n1", "nft", "-f", "-", stdin=f"table ip forwarded {{ {chain}; }}\n").returncode == 0
    rack.on("n1", "ip", "route", "add", ELSEWHERE, "dev", "eth0")
    rack.shoal("n1", "swarm", "init", "--advertise-addr", ELSEWHERE)
    eventually(lambda: rack.node_state("n1") == "Ready", what="n1 ready")
    assert leave(rack, "n1", "--force").returncode == 0
    rack.on("n1", "nft", "delete", "table", "ip", "forwarded")
    rack.on("n1", "ip", "route", "del", ELSEWHERE)
    assert is_outside(rack, "n1")


def test_the_last_manager_leaves_by_force_alone(rack: Lab) -> None:
    rack.shoal("n1", "swarm", "init", "--advertise-addr", "eth0")
    rack.shoal("n1", "service", "create", "--name", "web", "--replicas", "2", "web:1")
    done = leave(rack, "n1")
    assert done.returncode == 1
    assert "Removing the last manager erases all current state of the swarm" in done.stderr
    assert len(rack.running("web")) == 2
    assert leave(rack, "n1", "--force").stdout == "Node left the swarm.\n"
    assert is_outside(rack, "n1")
    again = leave(rack, "n1", "--force")
    assert (again.returncode, again.stderr) == (1, "Error: This node is not part of a swarm\n")


def test_a_worker_leaves_while_its_managers_are_away(rack: Lab) -> None:
    rack.shoal("n1", "swarm", "init", "--advertise-addr", "eth0")
    token = rack.shoal("n1", "swarm", "join-token", "-q", "worker")
    rack.shoal("n2", "swarm", "join", "--token", token, f"{rack.addresses['n1']}:2377")
    rack.shoal("n1", "service", "create", "--name", "web", "--mode", "global", "web:1")
    rack("cut", "n1")
    assert leave(rack, "n2").stdout == "Node left the swarm.\n"
    assert is_outside(rack, "n2")
    rack("heal", "n1")
    # Nobody said goodbye: the manager misses it.
    eventually(lambda: rack.node_state("n2") == "Down", what="n2 down")
    assert leave(rack, "n1", "--force").returncode == 0
    assert is_outside(rack, "n1")


def test_one_of_three_managers_leaves(rack: Lab) -> None:
    rack.shoal("n1", "swarm", "init", "--advertise-addr", "eth0", "--store", "etcd")
    token = rack.shoal("n1", "swarm", "join-token", "-q", "manager")
    for host in ("n2", "n3"):
        rack.shoal(host, "swarm", "join", "--token", token, f"{rack.addresses['n1']}:2377")
    assert leave(rack, "n3").returncode == 0
    assert is_outside(rack, "n3")
    # By force while the others are away: its member stays behind, and they say so.
    rack("cut", "n2")
    refused = leave(rack, "n2")
    assert refused.returncode == 1
    assert leave(rack, "n2", "--force").returncode == 0
    assert is_outside(rack, "n2")
    rack("heal", "n2")
    # One member of two cannot write; what is left begins anew as the only one.
    rack.shoal("n1", "swarm", "init", "--force-new-cluster")
    eventually(lambda: rack.node_state("n2") == "Down", what="n2 down")
    rack.shoal("n1", "node", "rm", "--force", "n2")
    assert leave(rack, "n1", "--force").returncode == 0
    assert is_outside(rack, "n1")
