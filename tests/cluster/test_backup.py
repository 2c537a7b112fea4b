"""A cluster whose only manager is lost comes back from its backup, and what ran never noticed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from tests.cluster.conftest import PROJECT, Lab, eventually, form_cluster, three_hosts

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

RESTORE = "shoal swarm restore --store etcd --passphrase-file /root/pass"


@pytest.fixture(scope="module")
def rack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Three hosts of this module's own: it destroys their cluster."""
    with three_hosts(f"b{os.getpid() % 10000}", tmp_path_factory.mktemp("web")) as rack:
        form_cluster(rack)
        rack.shoal("n1", "service", "create", "--name", "web", "--replicas", "6", "-p", "8090:80", "web:1")
        rack.on("n1", "tee", "/root/pass", stdin="correct horse battery\n")
        rack.shoal("n1", "swarm", "backup", "-o", "/root/backup", "--passphrase-file", "/root/pass")
        yield rack


def processes(rack: Lab) -> dict[str, set[str]]:
    """The containers that the workers run: a process that is started again is another container."""
    return {
        host: set(rack.shoal(host, "ps", "-q", "--no-trunc", "--filter", "is-task=true").split())
        for host in ("n2", "n3")
    }


def test_the_lost_manager_is_restored_and_what_ran_goes_on(rack: Lab) -> None:
    before = processes(rack)
    assert all(before.values())
    lost = {task["ID"] for task in rack.running("web") if task["Node"] == "n1"}
    tasks = {task["ID"] for task in rack.running("web")} - lost
    rack.shoal("n1", "swarm", "leave", "--force")
    how = ("--advertise-addr", rack.addresses["n1"], "--passphrase-file", "/root/pass")
    said = rack.shoal("n1", "swarm", "restore", *how, "/root/backup")
    assert said.startswith("Swarm restored: current node (")
    for host in ("n2", "n3"):
        eventually(lambda host=host: rack.node_state(host) == "Ready", what=f"{host} ready")

    def run_elsewhere() -> set[str]:
        running = {task["ID"] for task in rack.running("web")}
        return running if len(running) == 6 and not running & lost else set()

    # The old node n1 is found dead, and its two tasks get other homes.
    running = eventually(run_elsewhere, what="six running, none of them on the lost node")
    assert tasks <= running
    after = processes(rack)
    assert all(before[host] <= after[host] for host in before)
    for host in ("n2", "n3"):
        eventually(
            lambda host=host: rack.curl(host, f"http://{rack.addresses[host]}:8090/"), what=f"an answer at {host}"
        )
    rack.shoal("n1", "service", "scale", "web=8")
    assert len(rack.running("web")) == 8


def bring(rack: Lab, host: str) -> None:
    """What the operator kept, from n1 to a new host."""
    for name in ("backup", "pass"):
        content = rack.on("n1", "base64", f"/root/{name}").stdout
        rack.on(host, "sh", "-c", f"base64 -d > /root/{name}", stdin=content)


@pytest.mark.parametrize(
    ("command", "reached"),
    [
        (f"(head -c 1500 /root/backup; sleep 100) | {RESTORE} -", "until [ -e restore.backup ]; do :; done"),
        (f"{RESTORE} /root/backup", "until pkill -STOP etcd; do :; done"),
    ],
)
def test_an_agent_that_dies_in_the_middle_leaves_no_member(rack: Lab, command: str, reached: str) -> None:
    rack.on("n3", "shoal", "swarm", "leave")
    bring(rack, "n3")
    argv = [PROJECT / "deploy/lab", "exec", "n3", "--", "sh", "-c", command]
    with subprocess.Popen(argv, env={**os.environ, "SHOAL_LAB": rack.name}, stderr=subprocess.DEVNULL) as restoring:
        folder = "/var/lib/shoal/manager"
        rack.on("n3", "sh", "-c", f"until cd {folder}; do :; done 2>/dev/null; {reached}")
        rack.kill_9("n3", "bin/shoal-agent")
        rack.on("n3", "pkill", "-CONT", "etcd")
        eventually(lambda: rack.on("n3", "shoal", "ps").returncode == 0, what="the agent is there again")
        restoring.kill()
    assert rack.shoal("n3", "info", "--format", "{{.Swarm.LocalNodeState}}") == "inactive"
    assert not rack.pids("n3", "bin/etcd")
    assert rack.on("n3", "ls", "-d", folder, "/var/lib/shoal/etcd", "/var/lib/shoal/identity").stdout == ""


def test_restored_on_another_host_it_calls_the_nodes_there(rack: Lab) -> None:
    """n3 is no member since the test before; n2 knows the manager at n1 alone, which is off."""
    schedule = ("--backup-schedule", "1h", "--backup-dir", "/root/kept", "--backup-passphrase-file", "/root/pass")
    rack.shoal("n1", "swarm", "update", *schedule)
    taken = eventually(lambda: rack.on("n1", "sh", "-c", "ls /root/kept/*.backup").stdout.strip(), what="a backup")
    rack.on("n1", "mv", taken, "/root/backup")
    bring(rack, "n3")
    before = processes(rack)["n2"]
    rack("kill", "n1")
    taken = f"setsid {PROJECT}/.venv/bin/python -c 'import socket; s = socket.create_server((\"\", 2379)); input()'"
    rack.on("n3", "sh", "-c", f"mkfifo /root/held; {taken} <>/root/held >/dev/null 2>&1 &")
    eventually(lambda: rack.pids("n3", "create_server"), what="somebody has etcd's port")
    refused = rack.on("n3", *RESTORE.split(), "/root/backup")
    assert "address already in use" in refused.stderr
    assert rack.on("n3", "ls", "-d", "/var/lib/shoal/manager", "/var/lib/shoal/etcd").stdout == ""
    rack.kill_9("n3", "create_server")
    # Into the other kind of store than the one that it is of.
    assert rack.shoal("n3", *RESTORE.split()[1:], "/root/backup").startswith("Swarm restored")
    rack.kill_9("n3", "bin/shoal-agent")
    rack.kill_9("n3", "bin/shoal-manager")
    rack.kill_9("n3", "bin/etcd")
    ready = ("shoal", "node", "ls", "--filter", "name=n2", "--format", "{{.Status}}")
    eventually(lambda: "Ready" in rack.on("n3", *ready).stdout, what="n2 is ready at n3")
    first = ("info", "--format", "{{(index .Swarm.RemoteManagers 0).Addr}}")
    eventually(lambda: rack.shoal("n2", *first) == f"{rack.addresses['n3']}:2377", what="n2 keeps the new address")
    assert before <= processes(rack)["n2"]
    states = ("service", "ps", "--filter", "desired-state=running", "--format", "{{.CurrentState}}", "web")
    eventually(lambda: rack.shoal("n3", *states).count("Running") == 8, what="all eight run on what is left")
