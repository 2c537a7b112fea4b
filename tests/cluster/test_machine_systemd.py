"""Debian hosts with systemd as PID 1 become nodes, and stay what they are through restarts, power cuts and purges."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.cluster.conftest import PROJECT, eventually, import_web
from tests.cluster.test_machine import Desk, bare_hosts

TREE = PROJECT / "build" / "tree"
# The first run makes the root file system.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Two nodes."""
    subprocess.run([PROJECT / "deploy/tree", TREE], check=True, capture_output=True)
    with bare_hosts(2, tmp_path_factory.mktemp("systemd"), "--tree", str(TREE)) as desk:
        code, said = desk.run("apply")
        assert code == 0, said
        yield desk


def property_of(desk: Desk, name: str, key: str) -> str:
    return desk.lab.on(name, "systemctl", "show", "-p", key, "--value", "shoal-agent").stdout.strip()


def test_the_unit_runs_is_enabled_and_a_second_run_leaves_it_alone(nodes: Desk) -> None:
    pids = [property_of(nodes, name, "MainPID") for name in nodes.lab.addresses]
    assert [property_of(nodes, name, "UnitFileState") for name in nodes.lab.addresses] == ["enabled", "enabled"]
    code, said = nodes.run("apply")
    assert (code, said.count("as wanted")) == (0, 2), said
    assert [property_of(nodes, name, "MainPID") for name in nodes.lab.addresses] == pids


def test_containers_and_manager_outlive_a_restart_of_the_unit(nodes: Desk) -> None:
    lab = nodes.lab
    import_web(lab, nodes.folder)
    lab.shoal("n1", "run", "-d", "--name", "lasting", "web:1")
    before = lab.shoal("n1", "inspect", "-f", "{{.State.Pid}}", "lasting")
    manager = lab.on("n1", "cat", "/run/shoal/manager.pid").stdout
    agent = property_of(nodes, "n1", "MainPID")
    assert lab.on("n1", "systemctl", "restart", "shoal-agent").returncode == 0
    assert property_of(nodes, "n1", "MainPID") != agent
    assert lab.shoal("n1", "inspect", "-f", "{{.State.Pid}}", "lasting") == before
    assert lab.on("n1", "cat", "/run/shoal/manager.pid").stdout == manager
    lab.shoal("n1", "rm", "-f", "lasting")


def test_an_agent_that_is_killed_is_started_again(nodes: Desk) -> None:
    agent = property_of(nodes, "n2", "MainPID")
    nodes.lab.on("n2", "kill", "-9", agent)
    eventually(lambda: property_of(nodes, "n2", "MainPID") not in ("0", agent), what="another agent")


def test_a_power_cut_is_survived_without_us(nodes: Desk) -> None:
    nodes.lab("kill", "n2")
    nodes.lab("start", "n2")
    eventually(lambda: nodes.run("plan")[0] == 0, what="all as wanted")


def test_a_purge_leaves_nothing(nodes: Desk) -> None:
    code, said = nodes.run("rm", "-y", "--purge", "n2")
    assert code == 0, said
    places = "/opt/shoal /var/lib/shoal/* /run/shoal /etc/systemd/system/shoal-agent.service /usr/local/bin/shoal"
    running = "cat /proc/[0-9]*/cmdline | tr '\\0' '\\n' | grep ^/opt/shoal/"
    assert nodes.lab.on("n2", "sh", "-c", f"ls -d {places}; {running}").stdout == ""
    assert nodes.lab.on("n2", "systemctl", "is-system-running").stdout.strip() == "running"
    assert "n2" not in nodes.lab.shoal("n1", "node", "ls")
