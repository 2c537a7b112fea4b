"""State moves to another store and back, and a manager becomes the only one, under containers that run."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from tests.cluster.conftest import PROJECT, Lab, eventually, form_cluster, three_hosts

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

ETCD = "--etcd-endpoints=127.0.0.1:23790"


@pytest.fixture(scope="module")
def rack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A cluster of this module's own, and an etcd on n1."""
    with three_hosts(f"r{os.getpid() % 10000}", tmp_path_factory.mktemp("web")) as rack:
        form_cluster(rack)
        rack.shoal("n1", "service", "create", "--name", "web", "--replicas", "3", "-p", "8090:80", "web:1")
        start = "setsid etcd --data-dir /root/etcd --listen-client-urls http://127.0.0.1:23790 "
        start += "--advertise-client-urls http://127.0.0.1:23790 --listen-peer-urls http://127.0.0.1:23800 "
        rack.on("n1", "sh", "-c", start + ">/root/etcd.log 2>&1 </dev/null &")
        eventually(lambda: "true" in rack.curl("n1", "http://127.0.0.1:23790/health"), what="etcd serves")
        yield rack


def containers(rack: Lab) -> dict[str, str]:
    return {host: rack.shoal(host, "ps", "-q", "--no-trunc") for host in ("n1", "n2", "n3")}


def all_ready(rack: Lab) -> None:
    for host in ("n1", "n2", "n3"):
        eventually(lambda host=host: rack.node_state(host) == "Ready", what=f"{host} ready")


def migrate(rack: Lab, *where: str) -> subprocess.CompletedProcess[str]:
    return rack.on("n1", "shoal", "swarm", "migrate", *where)


def test_an_agent_that_dies_in_a_migration_goes_on_with_the_old_store(rack: Lab) -> None:
    before = containers(rack)
    rack.on("n1", "pkill", "-STOP", "etcd")  # of n1's own processes: the copy hangs
    argv = [PROJECT / "deploy/lab", "exec", "n1", "--", "shoal", "swarm", "migrate", "--to", "etcd", ETCD]
    with subprocess.Popen(argv, env={**os.environ, "SHOAL_LAB": rack.name}, stderr=subprocess.PIPE) as migrating:
        eventually(lambda: rack.pids("n1", "shoal-manager migrate"), what="it copies")
        assert "is being moved to another store" in rack.on("n1", "shoal", "service", "ls").stderr
        rack.kill_9("n1", "bin/shoal-agent")
        assert migrating.wait(timeout=120) == 1
    rack.on("n1", "pkill", "-CONT", "etcd")
    eventually(lambda: rack.on("n1", "shoal", "service", "ls").returncode == 0, what="the old store serves")
    all_ready(rack)
    assert containers(rack) == before


def test_state_moves_to_etcd_without_touching_a_container(rack: Lab) -> None:
    before = containers(rack)
    done = migrate(rack, "--to", "etcd", ETCD)
    assert (done.returncode, done.stdout) == (0, "The swarm's state is in etcd now.\n"), done.stderr
    all_ready(rack)
    assert containers(rack) == before
    assert len(rack.running("web")) == 3
    rack.kill_9("n1", "bin/shoal-manager")
    eventually(lambda: rack.on("n1", "shoal", "service", "ls").returncode == 0, what="it finds etcd again")
    rack.shoal("n1", "service", "scale", "web=4")
    assert "in that store already" in migrate(rack, "--to", "etcd", ETCD).stderr


def test_and_back(rack: Lab) -> None:
    before = containers(rack)
    done = migrate(rack, "--to", "sqlite")
    assert done.returncode == 0, done.stderr
    all_ready(rack)
    assert containers(rack) == before
    assert len(rack.running("web")) == 4


def test_the_only_manager_is_made_again_of_its_own_data(rack: Lab) -> None:
    before = containers(rack)
    said = rack.shoal("n1", "swarm", "init", "--force-new-cluster")
    assert said.startswith("Swarm initialized: current node (")
    all_ready(rack)
    assert containers(rack) == before
    rack.shoal("n1", "service", "scale", "web=3")
    refused = rack.on("n2", "shoal", "swarm", "init", "--force-new-cluster")
    assert "This node is not a swarm manager" in refused.stderr


def test_the_doctor_finds_a_node_that_is_off(rack: Lab) -> None:
    well = rack.on("n1", "shoal", "swarm", "doctor")
    assert well.returncode == 0, well.stdout
    rack("kill", "n3")
    eventually(lambda: rack.node_state("n3") == "Down", what="n3 down")
    ill = rack.on("n1", "shoal", "swarm", "doctor", "-q")
    assert ill.returncode == 1
    assert "n3 is down" in ill.stdout
    rack("start", "n3")
    all_ready(rack)


def test_backups_are_taken_by_schedule_and_a_failure_is_told(rack: Lab) -> None:
    rack.shoal(
        "n1", "swarm", "update", "--backup-schedule", "1m", "--backup-dir", "/root/backups", "--backup-keep", "2"
    )
    find = ("find", "/root/backups", "-name", "*.backup")
    taken = eventually(lambda: rack.on("n1", *find).stdout.split(), what="a backup")
    assert "is whole" in rack.shoal("n1", "swarm", "backup", "verify", taken[0])
    rack.on("n1", "touch", "/root/file")
    rack.shoal("n1", "swarm", "update", "--backup-dir", "/root/file")
    eventually(
        lambda: "the last scheduled backup failed" in rack.shoal("n1", "info"), seconds=180, what="info tells of it"
    )
    assert "the last try failed" in rack.on("n1", "shoal", "swarm", "doctor", "-q").stdout


def test_state_moves_into_an_etcd_of_the_managers_own_and_more_managers_join(rack: Lab) -> None:
    before = containers(rack)
    done = migrate(rack, "--to", "etcd")
    assert done.returncode == 0, done.stderr
    for host in ("n2", "n3"):
        rack.shoal("n1", "node", "promote", host)
        eventually(lambda host=host: status(rack, host) == "Reachable", what=f"{host} serves")
    assert containers(rack) == before
    manager = rack.pids("n1", "bin/shoal-manager")
    refused = migrate(rack, "--to", "sqlite")
    assert "3 managers use the store" in refused.stderr
    assert rack.pids("n1", "bin/shoal-manager") == manager, "it was stopped for nothing"


def test_one_of_three_managers_goes_on_alone_when_the_others_are_lost(rack: Lab) -> None:
    before = rack.shoal("n1", "ps", "-q", "--no-trunc")
    rack("kill", "n2")
    rack("kill", "n3")
    eventually(lambda: rack.on("n1", "shoal", "service", "scale", "-d", "web=5").returncode, what="no quorum")
    eventually(
        lambda: "etcd takes no writes" in rack.on("n1", "shoal", "swarm", "doctor", "-q").stdout,
        what="the doctor knows",
    )
    rack.shoal("n1", "swarm", "init", "--force-new-cluster")
    assert rack.on("n1", "shoal", "service", "scale", "web=4").returncode == 0
    assert before in rack.shoal("n1", "ps", "-q", "--no-trunc")
    # Who comes back one by one finds that it is a worker now.
    for host in ("n2", "n3"):
        rack("start", host)
        eventually(lambda host=host: rack.node_state(host) == "Ready", what=f"{host} ready")
        eventually(lambda host=host: not rack.pids(host, "bin/shoal-manager"), what=f"{host} is no manager")
        assert status(rack, host) == ""


def status(rack: Lab, node: str) -> str:
    return rack.shoal("n1", "node", "ls", "--filter", f"name={node}", "--format", "{{.ManagerStatus}}")


def test_the_last_manager_leaves_by_force_and_also_when_it_is_gone(rack: Lab) -> None:
    assert rack.on("n1", "shoal", "swarm", "leave").returncode == 1
    rack.on("n1", "sh", "-c", "rm -rf /var/lib/shoal/manager/*")
    rack.kill_9("n1", "bin/shoal-manager")
    assert rack.shoal("n1", "swarm", "leave", "--force") == "Node left the swarm."
    assert rack.shoal("n1", "info", "--format", "{{.Swarm.LocalNodeState}}") == "inactive"
    assert not rack.shoal("n1", "ps", "-q", "--filter", "is-task=true")
