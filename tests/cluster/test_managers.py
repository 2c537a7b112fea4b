"""Three managers with an etcd of their own, over one lab: what a death of each takes away, and what comes back.

The tests share the lab and stand in order: each leaves three managers, all hosts ready, and the service as it was.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.conftest import PROJECT, Lab, eventually, import_web, leftovers, wait_for_mesh

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

HOSTS = ("n1", "n2", "n3")


class Managers:
    """The lab as a cluster of managers, by what a user sees of it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    def statuses(self, at: str) -> dict[str, str]:
        """Host → "Ready Leader", as the manager of host `at` sees it; empty while it does not answer."""
        done = self.lab.on(at, "shoal", "node", "ls", "--format", "{{.Hostname}} {{.Status}} {{.ManagerStatus}}")
        rows = [line.split(" ", 1) for line in done.stdout.splitlines()] if done.returncode == 0 else []
        return {host: status.strip() for host, status in rows}

    def leader(self, at: str = "n1") -> str:
        return next((host for host, status in self.statuses(at).items() if status.endswith("Leader")), "")

    def all_serve(self) -> bool:
        """Whether every host sees three managers, one of which leads, and all nodes ready."""
        wanted = ["Ready Leader", "Ready Reachable", "Ready Reachable"]
        return all(sorted(self.statuses(at).values()) == wanted for at in HOSTS)

    def pids(self) -> dict[str, set[str]]:
        """Of the tasks' containers, by host; one that ends while it is looked at has none any more."""
        found = {}
        for host in HOSTS:
            ids = self.lab.shoal(host, "ps", "-q", "--no-trunc", "--filter", "is-task=true").split()
            shown = self.lab.on(host, "shoal", "inspect", "-f", "{{.State.Pid}}", *ids).stdout if ids else ""
            found[host] = set(shown.split()) - {"0"}
        return found

    def write(self, at: str) -> bool:
        """Whether a write through the manager of host `at` is acknowledged."""
        return not self.refusal(at)

    def refusal(self, at: str) -> str:
        """Why it is not; empty where it is."""
        label = f"tried=t{time.monotonic_ns()}"
        done = self.lab.on(at, "shoal", "node", "update", "--label-add", label, at)
        return f"{at}: {done.stderr}" if done.returncode else ""

    def running(self, at: str) -> list[str]:
        """Hosts of the tasks that run and shall."""
        done = self.lab.on(
            at, "shoal", "service", "ps", "web", "--filter", "desired-state=running",
            "--format", "{{.Node}} {{.CurrentState}}",
        )  # fmt: skip
        return sorted(line.split()[0] for line in done.stdout.splitlines() if " Running" in line)

    def down(self, at: str) -> list[str]:
        return [host for host, status in self.statuses(at).items() if status.startswith("Down")]


@pytest.fixture(scope="module")
def managers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Managers]:
    """Three hosts, all of them managers, and a service of six tasks."""
    lab = Lab(f"m{os.getpid() % 10000}")
    try:
        lab("up", "3")
        import_web(lab, tmp_path_factory.mktemp("web"))
        lab.shoal("n1", "swarm", "init", "--advertise-addr", lab.addresses["n1"], "--store", "etcd")
        token = lab.shoal("n1", "swarm", "join-token", "-q", "manager")
        for host in ("n2", "n3"):
            lab.shoal(host, "swarm", "join", "--token", token, f"{lab.addresses['n1']}:2377")
        made = Managers(lab)
        eventually(made.all_serve, what="three managers")
        lab.shoal("n2", "service", "create", "--name", "web", "--replicas", "6", "-p", "8080:80", "web:1")
        wait_for_mesh(lab, 8080)
        yield made
    finally:
        for log in sorted(Path("/var/lib/shoal-lab", lab.name).glob("n*/**/*.log")):
            print(f"---- last lines of {log}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-20:]))
        lab("down", check=False)
    eventually(lambda: not leftovers(lab.name), what="nothing left of the lab")


@pytest.fixture(autouse=True)
def whole(managers: Managers) -> Iterator[None]:
    """After each test three managers serve again."""
    yield
    for host in HOSTS:
        managers.lab("start", host, check=False)
    eventually(managers.all_serve, what="three managers again")


def test_every_manager_answers_the_same(managers: Managers) -> None:
    assert managers.statuses("n1") == managers.statuses("n2") == managers.statuses("n3")
    for host in HOSTS:
        assert managers.write(host)
    container = managers.lab.shoal("n3", "ps", "-q", "--filter", "is-task=true").split()[0]
    name = managers.lab.shoal("n3", "exec", container, "hostname")
    assert managers.lab.shoal("n1", "--node", "n3", "exec", container, "hostname") == name


def test_killed_managers_come_back_and_nothing_else_changes(managers: Managers) -> None:
    before = managers.pids()
    for host in HOSTS:
        managers.lab.kill_9(host, "bin/shoal-manager")
    eventually(managers.all_serve, what="three managers again")
    assert managers.pids() == before


def test_the_leader_that_stands_still_is_replaced_and_writes_nothing_when_it_wakes(managers: Managers) -> None:
    before = managers.pids()
    leader = managers.leader()
    witness = next(host for host in HOSTS if host != leader)
    managers.lab.on(leader, "pkill", "-STOP", "-f", "bin/shoal-manager")
    try:
        eventually(lambda: managers.leader(witness) not in ("", leader), what="another leader")
        assert managers.write(witness)
        assert not managers.down(witness)
    finally:
        managers.lab.on(leader, "pkill", "-CONT", "-f", "bin/shoal-manager")
    eventually(managers.all_serve, what="the sleeper serves again")
    assert managers.leader(witness) != leader
    assert managers.pids() == before


def test_quorum_lost_and_found(managers: Managers) -> None:
    before = managers.pids()
    lab = managers.lab
    stopped = ("n1", "n2")
    for host in stopped:
        lab.on(host, "pkill", "-STOP", "-x", "etcd")
    try:
        refused = eventually(
            lambda: (done := lab.on("n3", "shoal", "node", "update", "--label-add", "a=b", "n3")).returncode and done,
            what="a refusal",
        )
        assert "etcd" in refused.stderr
        listed = eventually(
            lambda: (
                (done := lab.on("n3", "shoal", "service", "ls")).stderr.startswith("Warning: the store was") and done
            ),
            what="an answer that says how old it is",
        )
        assert listed.returncode == 0
        assert "web" in listed.stdout
        assert lab.curl("n3", f"http://{lab.addresses['n3']}:8080/")
    finally:
        for host in stopped:
            lab.on(host, "pkill", "-CONT", "-x", "etcd")
    eventually(lambda: managers.write("n3"), what="writes again")
    eventually(managers.all_serve, what="three managers again")
    assert managers.pids() == before
    assert len(managers.running("n3")) == 6


def test_the_leaders_host_dies_and_the_cluster_goes_on(managers: Managers) -> None:
    leader = managers.leader()
    others = [host for host in HOSTS if host != leader]
    before = managers.pids()
    managers.lab("kill", leader)
    eventually(lambda: managers.write(others[0]), what="a write")
    eventually(lambda: managers.leader(others[0]) in others, what="another leader")
    eventually(lambda: len(managers.running(others[0])) == 6 and leader not in managers.running(others[0]))
    eventually(lambda: managers.down(others[0]) == [leader], what="the dead host, and no other, is down")
    # Who names all managers reaches one that lives, whichever stands first.
    addresses = [managers.lab.addresses[host] for host in (leader, *others)]
    there = managers.lab.shoal(others[0], "-H", ",".join(addresses), "node", "ls", "--format", "{{.Hostname}}")
    assert sorted(there.split()) == sorted(HOSTS)
    managers.lab("start", leader)
    eventually(managers.all_serve, what="the dead host serves again")
    after = managers.pids()
    assert all(before[host] <= after[host] for host in others)


def test_the_root_is_replaced_while_writes_go_on_and_the_old_certificates_open_no_etcd(managers: Managers) -> None:
    lab = managers.lab
    before = {host: lab.pids(host, "^[^ ]*etcd ") for host in HOSTS}
    lab.on("n3", "cp", "/var/lib/shoal/etcd/identity.pem", "/var/lib/shoal/etcd/root.pem", "/root/")
    endpoint = f"https://{lab.addresses['n1']}:2379"
    files = ("--cert", "/root/identity.pem", "--key", "/root/identity.pem", "--cacert")
    ask = ("etcdctl", "--endpoints", endpoint, *files)
    assert lab.on("n3", *ask, "/root/root.pem", "get", "/shoal/leader").returncode == 0
    new = "/var/lib/shoal/etcd/identity.pem"
    ask_anew = ("etcdctl", "--endpoints", endpoint, "--cert", new, "--key", new, "--cacert")

    rotate = [str(PROJECT / "deploy/lab"), "exec", "n1", "--", "shoal", "swarm", "ca", "--rotate", "-q"]
    refused = []
    with subprocess.Popen(rotate, env={**os.environ, "SHOAL_LAB": lab.name}) as rotating:
        while rotating.poll() is None:
            # One that is under way when its member of etcd ends may have been done, and says that etcd was silent; the
            # next one is done. No certificate is ever refused.
            whys = [why for host in HOSTS if (why := managers.refusal(host))]
            refused += [why for why in whys if "Error: etcd" not in why or "certificate" in why]
            refused += [again for why in whys if (again := managers.refusal(why.partition(":")[0]))]
    assert (rotating.returncode, refused) == (0, [])

    new_root = "/var/lib/shoal/etcd/root.pem"

    def opens(asking: tuple[str, ...]) -> bool:
        return lab.on("n3", *asking, new_root, "get", "/shoal/leader", "--dial-timeout", "3s").returncode == 0

    eventually(lambda: opens(ask_anew) and not opens(ask), what="the new certificate taken and the old one refused")
    # One after the other they are restarted, n1's not as the last one.
    eventually(
        lambda: all(lab.pids(host, "^[^ ]*etcd ") not in (before[host], []) for host in HOSTS),
        what="every member of etcd restarted",
    )
    assert managers.write("n3")


def test_a_manager_is_demoted_promoted_and_leaves(managers: Managers) -> None:
    lab = managers.lab
    lab.shoal("n1", "node", "demote", "n3")
    eventually(
        lambda: not lab.pids("n3", "bin/shoal-manager") and not lab.pids("n3", "^[^ ]*etcd "), what="n3 a worker"
    )
    refused = lab.on("n1", "shoal", "node", "demote", "n2")
    assert refused.returncode == 0 or "must answer" in refused.stderr
    eventually(lambda: "Ready" in managers.statuses("n1").values(), what="a node that is no manager")
    worker = lab.on("n3", "shoal", "node", "ls")
    assert "not a swarm manager" in worker.stderr
    for host in ("n2", "n3"):
        # Who is ceasing to be a manager is not promoted before that is done.
        promotion = ("shoal", "node", "promote", host)
        eventually(lambda argv=promotion: lab.on("n1", *argv).returncode == 0, what=f"{host} promoted")
    eventually(managers.all_serve, what="three managers again")
    lab.shoal("n3", "swarm", "leave")
    # Who leaves says so to the manager that it is connected to; the others hear it through the store.
    eventually(lambda: managers.statuses("n1").get("n3") == "Down", what="n3 has left")
    lab.shoal("n1", "node", "rm", lab.shoal("n1", "node", "ls", "-q", "--filter", "name=n3"))
    token = lab.shoal("n2", "swarm", "join-token", "-q", "manager")
    lab.shoal("n3", "swarm", "join", "--token", token, f"{lab.addresses['n2']}:2377")


def test_what_would_lose_quorum_is_refused(managers: Managers) -> None:
    lab = managers.lab
    managers.lab("kill", "n3")
    eventually(lambda: managers.statuses("n1").get("n3") == "Down Unreachable", what="n3 gone")
    done = lab.on("n1", "shoal", "node", "demote", "n2")
    assert done.returncode == 1
    assert "of the 2 managers that would be left, 2 must answer, and 1 do" in done.stderr
    done = lab.on("n1", "shoal", "swarm", "leave")
    assert done.returncode == 1
    assert "must answer" in done.stderr
