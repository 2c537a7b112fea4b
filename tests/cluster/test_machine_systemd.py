"""Hosts inside this machine, Debians with systemd as PID 1, are made, become nodes, and stay what they are through
restarts, power cuts and purges."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from machine.drivers.local.driver import LocalDriver
from tests.cluster.conftest import PROJECT, Lab, eventually, import_web, leftovers
from tests.cluster.test_machine import Desk, bare_hosts

TREES = PROJECT / "build" / "trees"
BOOT_ID = "/proc/sys/kernel/random/boot_id"
# The first run makes the root file system.
pytestmark = pytest.mark.timeout(1800)


class Machines(Lab):
    """The hosts of a store's driver, entered as those of a lab are."""

    def __init__(self, store: Path) -> None:
        self.driver = LocalDriver(store / "drivers" / "local", store / "trees", tell=print)
        super().__init__(self.driver.rack.name)

    @property
    def addresses(self) -> dict[str, str]:  # type: ignore[override]
        return {host.name: host.address for host in self.driver.rack.hosts()}

    def entering(self, host: str) -> list[str]:
        flags = ["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"]
        return ["nsenter", "--target", str(self.driver.rack.pid(host)), *flags, "--"]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Two nodes: one of an inventory, which has its host made once, and one by itself; whoever made that was killed in
    the middle of it, and asked again."""
    folder = tmp_path_factory.mktemp("systemd")
    machines = Machines(folder / "store")
    desk = Desk(machines, folder)
    TREES.mkdir(parents=True, exist_ok=True)
    (desk.store / "trees").symlink_to(TREES)
    try:
        desk.write("machines.yaml", "hosts: [{name: n1, driver: local, role: manager, options: {memory: 768m}}]\n")
        assert desk.run("plan")[0] == 3
        for result in ("changed", "as wanted"):
            code, said = desk.run("apply")
            assert (code, said.count(result)) == (0, 1), said
        first = desk.start("create", "-d", "local", "n2")
        eventually(lambda: "n2" in machines.addresses, what="a record of n2")
        first.send_signal(signal.SIGKILL)
        first.communicate(timeout=120)
        code, said = desk.run("create", "-d", "local", "n2")
        assert code == 0, said
        yield desk
    finally:
        for name in machines.addresses:
            print(f"---- {name}\n{machines.driver.rack.log(name).read_text()}")
        made = [path.stem for path in (desk.store / "machines").glob("*.json")]
        said = desk.run("rm", "-f", *made)[1] if made else ""
    assert not machines.addresses, said
    eventually(lambda: not leftovers(machines.name), what=f"nothing left of {machines.name}")


def property_of(desk: Desk, name: str, key: str) -> str:
    return desk.lab.on(name, "systemctl", "show", "-p", key, "--value", "shoal-agent").stdout.strip()


def test_the_unit_runs_is_enabled_and_a_second_run_leaves_it_alone(nodes: Desk) -> None:
    pids = [property_of(nodes, name, "MainPID") for name in nodes.lab.addresses]
    assert [property_of(nodes, name, "UnitFileState") for name in nodes.lab.addresses] == ["enabled", "enabled"]
    code, said = nodes.run("provision")
    assert (code, said.count("as wanted")) == (0, 2), said
    assert [property_of(nodes, name, "MainPID") for name in nodes.lab.addresses] == pids


def test_a_host_has_the_memory_that_it_was_given_and_its_cluster_counts_on_no_more(nodes: Desk) -> None:
    file = "memory.limit_in_bytes" if Path("/sys/fs/cgroup/memory").exists() else "memory.max"
    shown = nodes.lab.on("n1", "sh", "-c", f"cat /sys/fs/cgroup/memory/{file} || cat /sys/fs/cgroup/{file}")
    assert shown.stdout == f"{768 << 20}\n"
    told = nodes.lab.shoal("n1", "node", "inspect", "-f", "{{.Description.Resources.MemoryBytes}}", "n1", "n2")
    assert told.split() == [str(768 << 20), str(1 << 30)]


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
    assert nodes.run("kill", "n2")[0] == 0
    assert nodes.run("status", "n2")[1] == "Stopped\n"
    assert nodes.run("start", "n2")[0] == 0
    eventually(lambda: nodes.run("provision", "n2")[1].count("as wanted") == 1, what="all as wanted")


def test_a_restart_boots_the_host_with_the_disk_that_it_had(nodes: Desk) -> None:
    lab = nodes.lab
    boots = [lab.on("n2", "cat", BOOT_ID).stdout]
    lab.on("n2", "sh", "-c", "echo kept > /root/letter; echo gone > /run/letter")
    assert nodes.run("restart", "n2")[0] == 0
    boots.append(lab.on("n2", "cat", BOOT_ID).stdout)
    assert lab.on("n2", "sh", "-c", "cat /root/letter; cat /run/letter").stdout == "kept\n"
    # Whoever is logged in may do it as well.
    lab.on("n2", "systemctl", "reboot")

    def booted_again() -> bool:
        code, said = nodes.run("ssh", "n2", "cat", BOOT_ID)
        return code == 0 and said not in boots

    eventually(booted_again, what="another boot")
    # Its manager may call it ready as long as it does not miss it: the agent itself must be there.
    eventually(lambda: lab.on("n2", "shoal", "ps").returncode == 0, what="the agent of n2 answers")
    eventually(lambda: lab.node_state("n2") == "Ready", what="n2 ready again")


def test_a_purge_leaves_nothing_and_a_host_goes_with_its_machine(nodes: Desk) -> None:
    elsewhere = ("-s", str(nodes.folder / "elsewhere"))
    key = {name: str(nodes.lab.driver.rack.home(name) / "key") for name in nodes.lab.addresses}
    for name, address in nodes.lab.addresses.items():
        words = ("--generic-ip-address", address, "--generic-ssh-user", "root", "--generic-ssh-key", key[name])
        assert nodes.run("adopt", *elsewhere, *words, name) == (0, f"{name}\n")
    code, said = nodes.run("rm", *elsewhere, "-y", "--purge", "n2")
    assert code == 0, said
    places = "/opt/shoal /var/lib/shoal/* /run/shoal /etc/systemd/system/shoal-agent.service /usr/local/bin/shoal"
    running = "cat /proc/[0-9]*/cmdline | tr '\\0' '\\n' | grep ^/opt/shoal/"
    assert nodes.lab.on("n2", "sh", "-c", f"ls -d {places}; {running}").stdout == ""
    assert nodes.lab.on("n2", "systemctl", "is-system-running", "--wait").stdout.strip() == "running"
    assert nodes.lab.shoal("n1", "node", "ls", "--format", "{{.Hostname}}").split() == ["n1"]
    address = nodes.lab.addresses["n2"]
    assert nodes.run("rm", "-y", "n2")[0] == 0
    assert list(nodes.lab.addresses) == ["n1"]
    assert address not in (nodes.store / "known_hosts").read_text()


def test_a_lab_stands_on_a_tree_too(nodes: Desk, tmp_path: Path) -> None:
    tree = nodes.lab.driver.rack.get("n1").tree
    with bare_hosts(1, tmp_path, "--tree", tree) as desk:
        assert desk.lab.on("n1", "systemctl", "is-system-running", "--wait").stdout == "running\n"
        words = ("ssh", "-i", desk.key, "-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={tmp_path}/known")
        said = subprocess.run([*words, f"root@{desk.lab.addresses['n1']}", "hostname"], capture_output=True, text=True)
        assert said.stdout == "n1\n", said.stderr
