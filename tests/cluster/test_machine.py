"""Bare hosts with sshd become a cluster, by the commands that a user would type; they have no way to the internet."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from machine.record import Records
from tests.cluster.conftest import PROJECT, Lab, eventually, leftovers

SHOAL = PROJECT / ".venv/bin/shoal"
LOG = "journalctl -u shoal-agent -n 20 --no-pager 2> /dev/null || tail -20 /var/log/shoal-agent.log"
ARTEFACTS = PROJECT / "build" / "artefacts"
IDENTITY = "/var/lib/shoal/identity/identity.json"
# The first fixture makes the artefact and a cluster.
pytestmark = pytest.mark.timeout(1800)


class Desk:
    """The computer that hosts are provisioned from: an inventory, a key, and what was written down."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.folder = folder
        self.store = folder / "store"
        self.store.mkdir()
        # Named by their content: what was made for one test is good for all.
        ARTEFACTS.mkdir(parents=True, exist_ok=True)
        (self.store / "artefacts").symlink_to(ARTEFACTS)
        self.write("machines.yaml", self.hosts())

    @property
    def key(self) -> Path:
        return self.folder / "key"

    def hosts(self, **more: str) -> str:
        """The inventory; `more` is added to what is said of a host."""
        rows = [
            f"  - {{name: {name}, address: {address}{', role: manager' * (name == 'n1')}{more.get(name, '')}}}"
            for name, address in self.lab.addresses.items()
        ]
        return "\n".join([f"defaults: {{ssh: {{user: root, identity: {self.key}}}}}", "hosts:", *rows, ""])

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def start(self, *argv: str, program: Path = PROJECT) -> subprocess.Popen[str]:
        """Begin a command, of the sources in `program`."""
        own = {"MACHINE_STORAGE_PATH": str(self.store), "SHOAL_WARM": "0", "PYTHONPATH": str(program)}
        environment = {**os.environ, **own}
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [SHOAL, "machine", *argv], cwd=self.folder, env=environment, stdin=subprocess.DEVNULL,
            stdout=pipe, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def run(self, *argv: str, program: Path = PROJECT) -> tuple[int, str]:
        """Its exit code, and all that it said."""
        process = self.start(*argv, program=program)
        said, _ = process.communicate(timeout=1200)
        return process.returncode, said

    def flags(self, name: str) -> tuple[str, ...]:
        """What tells `create` and `adopt` of a host."""
        address = self.lab.addresses[name]
        return "--generic-ip-address", address, "--generic-ssh-user", "root", "--generic-ssh-key", str(self.key)

    def journal(self) -> list[dict[str, object]]:
        path = self.store / "journal.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@contextlib.contextmanager
def bare_hosts(count: int, folder: Path, *more: str) -> Iterator[Desk]:
    """A lab of bare hosts and the desk; gone afterwards. `more` is for `deploy/lab up`."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key"], check=True)
    lab = Lab(f"m{os.getpid() % 10000}")
    try:
        lab("up", str(count), "--ssh", str(folder / "key.pub"), *more)
        yield Desk(lab, folder)
    finally:
        for name in lab.addresses:
            print(f"---- {name}\n{lab.on(name, 'sh', '-c', LOG).stdout}")
        lab("down", check=False)
    eventually(lambda: not leftovers(lab.name), what=f"nothing left of the lab {lab.name}")


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Three bare hosts; they are no nodes yet."""
    with bare_hosts(3, tmp_path_factory.mktemp("desk")) as desk:
        yield desk


@pytest.fixture(scope="module")
def nodes(desk: Desk) -> Desk:
    """The same once they are nodes; the first run is killed in the middle of it, and the second goes on."""
    first = desk.start("apply")
    eventually(lambda: any("upload" in str(line["command"]) for line in desk.journal()), what="an upload")
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=120)
    code, said = desk.run("apply", "--resume")
    assert code == 0, said
    return desk


def agents(desk: Desk) -> dict[str, str]:
    return {name: desk.lab.on(name, "cat", "/run/shoal/supervisor.pids").stdout for name in desk.lab.addresses}


def test_a_plan_shows_everything_and_changes_nothing(desk: Desk) -> None:
    code, said = desk.run("plan")
    assert code == 3, said
    assert "found the cluster" in said
    assert said.count("join as a worker") == 2
    assert not (desk.store / "machines").exists()
    assert desk.lab.on("n1", "ls", "/opt/shoal").returncode != 0


def test_every_fault_of_every_host_is_told_at_once(desk: Desk) -> None:
    fake = "LD_PRELOAD=$(echo /usr/lib/*/faketime/libfaketime.so.1) FAKETIME=+1h exec /bin/date"
    broken = {
        "n1": "mount -t tmpfs -o size=50m none /opt && mv /usr/sbin/nft /usr/sbin/away",
        "n2": f"printf '#!/bin/sh\\n%s \"$@\"\\n' '{fake}' > /usr/local/bin/date && chmod +x /usr/local/bin/date",
        "n3": f"echo {desk.lab.on('n1', 'cat', '/etc/machine-id').stdout.strip()} > /etc/machine-id",
    }
    own = desk.lab.on("n3", "cat", "/etc/machine-id").stdout.strip()
    mended = {
        "n1": "umount /opt && mv /usr/sbin/away /usr/sbin/nft",
        "n2": "rm /usr/local/bin/date",
        "n3": f"echo {own} > /etc/machine-id",
    }
    for name, script in broken.items():
        assert desk.lab.on(name, "sh", "-c", script).returncode == 0
    try:
        code, said = desk.run("plan")
    finally:
        for name, script in mended.items():
            desk.lab.on(name, "sh", "-c", script)
    assert code == 1, said
    for fault in (
        "n1: /opt has 50 MiB free",
        "n1: the program nft is missing",
        "n3: it has the machine-id of n1",
    ):
        assert fault in said, said
    # An hour, and what it takes to ask on a busy machine.
    assert re.search(r"n2: its clock is 36\d\d s ahead of the others'", said), said


def test_bare_hosts_without_internet_become_ready_nodes_though_the_first_run_was_killed(nodes: Desk) -> None:
    assert nodes.lab.on("n2", "ip", "route", "show", "default").stdout == ""
    listed = nodes.lab.on("n1", "/usr/local/bin/shoal", "node", "ls", "--format", "{{.Hostname}} {{.Status}}").stdout
    assert sorted(listed.splitlines()) == ["n1 Ready", "n2 Ready", "n3 Ready"]
    show = "read -r _ agent < /run/shoal/supervisor.pids; tr '\\0' ' ' < /proc/$agent/cmdline"
    assert nodes.lab.on("n3", "sh", "-c", show).stdout.startswith("/opt/shoal/0.1.0-")


def test_a_second_run_changes_nothing(nodes: Desk) -> None:
    before, journal = agents(nodes), len(nodes.journal())
    code, said = nodes.run("apply")
    assert (code, said.count("as wanted")) == (0, 3), said
    assert agents(nodes) == before
    assert len(nodes.journal()) == journal


def test_no_token_is_written_down(nodes: Desk) -> None:
    texts = [path.read_text() for path in nodes.store.rglob("*.json*")]
    assert texts
    assert not any("SHTKN-" in text for text in texts)


def test_one_changed_host_key_stops_that_host_alone(nodes: Desk) -> None:
    known = nodes.store / "known_hosts"
    before = known.read_text()
    address, other = nodes.lab.addresses["n3"], nodes.lab.addresses["n2"]
    stranger = next(line.split(" ", 1)[1] for line in before.splitlines() if line.startswith(f"{other} "))
    kept = [line for line in before.splitlines() if not line.startswith(f"{address} ")]
    known.write_text("\n".join([*kept, f"{address} {stranger}", ""]))
    try:
        code, said = nodes.run("apply")
    finally:
        known.write_text(before)
    assert code == 1
    assert said.count("SHA256:") >= 2
    assert said.count("as wanted") == 2


def test_labels_are_mended_once_nobody_else_works_on_the_machine(nodes: Desk) -> None:
    nodes.write("labelled.yaml", nodes.hosts(n2=", labels: {zone: b}"))
    with Records(nodes.store).held(["n2"], "ann@desk (pid 7) since noon"):
        before, journal = (nodes.store / "machines" / "n2.json").read_text(), nodes.journal()
        code, said = nodes.run("apply", "-f", "labelled.yaml")
        assert (code, said) == (1, "Error: n2 is worked on by ann@desk (pid 7) since noon; wait for its end\n")
        assert ((nodes.store / "machines" / "n2.json").read_text(), nodes.journal()) == (before, journal)
    code, said = nodes.run("apply", "-f", "labelled.yaml")
    assert code == 0, said
    shown = nodes.lab.on("n1", "/usr/local/bin/shoal", "node", "inspect", "-f", "{{.Spec.Labels}}", "n2").stdout
    assert "zone:b" in shown
    assert nodes.run("apply", "-f", "labelled.yaml")[1].count("as wanted") == 3


def test_a_host_that_only_a_bastion_reaches_is_reached_through_it(nodes: Desk) -> None:
    for name, address in (("n1", "10.99.0.1/24"), ("n2", "10.99.0.2/24")):
        nodes.lab.on(name, "ip", "addr", "add", address, "dev", "eth0")
    n1 = nodes.lab.addresses["n1"]
    nodes.write("ssh_config", f"Host *\n  User root\n  IdentityFile {nodes.key}\n  UserKnownHostsFile none\n")
    n2 = f"{{name: n2, address: 10.99.0.2, ssh: {{jump: {n1}}}}}"
    rows = f"hosts:\n  - {{name: n1, address: {n1}, role: manager}}\n  - {n2}\n"
    nodes.write("behind.yaml", rows)
    code, said = nodes.run("plan", "-f", "behind.yaml", "--ssh-config", "ssh_config")
    assert (code, said.count("as wanted")) == (0, 2), said


def test_certificates_are_exchanged_and_nothing_restarts(nodes: Desk) -> None:
    def shown() -> dict[str, str]:
        return {name: nodes.lab.on(name, "sha256sum", IDENTITY).stdout for name in nodes.lab.addresses}

    before, certificates = agents(nodes), shown()
    code, said = nodes.run("regenerate-certs", "-f")
    assert (code, said.count("certificate is good until")) == (0, 3), said
    assert agents(nodes) == before
    assert not set(shown().items()) & set(certificates.items())


def test_a_power_cut_is_survived_without_us(nodes: Desk) -> None:
    nodes.lab("kill", "n3")
    nodes.lab("start", "n3")
    eventually(lambda: nodes.run("plan")[1].count("as wanted") == 3, what="all as wanted")


def test_machines_are_listed_in_docker_machines_columns(nodes: Desk) -> None:
    code, said = nodes.run("ls")
    assert code == 0, said
    head, *rows = [line.split() for line in said.splitlines()]
    assert head == ["NAME", "ACTIVE", "DRIVER", "STATE", "URL", "SWARM", "DOCKER", "ERRORS"]
    assert [row[:4] for row in rows] == [[f"n{number}", "-", "ssh", "Running"] for number in (1, 2, 3)]
    assert nodes.run("ls", "-q", "--filter", "name=[23]")[1].split() == ["n2", "n3"]
    assert nodes.run("ip", "n1", "n3")[1].split() == [nodes.lab.addresses["n1"], nodes.lab.addresses["n3"]]
    assert nodes.run("status", "n2")[1] == "Running\n"
    url = f"ssh://root@{nodes.lab.addresses['n2']}"
    assert nodes.run("url", "n2")[1] == f"{url}\n"
    asked = f'eval "$({SHOAL} machine env -s {nodes.store} --shell sh n2)"; {SHOAL} info --format "{{{{.Name}}}}"'
    environment = {**os.environ, "SHOAL_WARM": "0"}
    said = subprocess.run(["sh", "-c", asked], env=environment, capture_output=True, text=True)
    assert said.stdout == "n2\n", said.stderr
    assert nodes.run("inspect", "-f", "{{.Machine.Role}} {{.Driver}}", "n1")[1] == "manager ssh\n"


def test_commands_and_files_go_to_machines_by_name(nodes: Desk) -> None:
    code, said = nodes.run("exec", "n1", "n3", "--", "hostname")
    assert (code, said) == (0, "n1  n1\nn3  n3\n")
    assert nodes.run("exec", "n2", "--", "sh", "-c", "exit 7") == (7, "")
    assert nodes.run("ssh", "n2", "hostname") == (0, "n2\n")
    nodes.write("letter", "dear host\n")
    assert nodes.run("scp", "-q", "letter", "n2:/tmp/letter")[0] == 0
    assert nodes.run("scp", "-q", "n2:/tmp/letter", "n3:/tmp/letter")[0] == 0
    assert nodes.lab.on("n3", "cat", "/tmp/letter").stdout == "dear host\n"


def test_a_machine_is_purged_forgotten_and_made_again(nodes: Desk) -> None:
    code, said = nodes.run("rm", "-y", "--purge", "n3")
    assert code == 0, said
    assert nodes.run("ls", "-q")[1].split() == ["n1", "n2"]
    left = nodes.lab.on(
        "n3", "sh", "-c", "ls -d /opt/shoal /var/lib/shoal/* /run/shoal /etc/init.d/shoal-agent; pgrep -a shoal"
    )
    assert left.stdout == ""
    names = nodes.lab.on("n1", "/usr/local/bin/shoal", "node", "ls", "--format", "{{.Hostname}}").stdout.split()
    assert sorted(names) == ["n1", "n2"]
    assert "shoal" not in nodes.lab.on("n3", "nft", "list", "tables").stdout
    words = nodes.flags("n3")
    code, said = nodes.run("create", "-d", "generic", *words, "--label", "zone=c", "n3")
    assert code == 0, said
    assert nodes.run("create", *words, "n3")[0] == 1
    assert nodes.run("provision", "n3") == (0, "MACHINE   STEPS     RESULT\nn3        0         as wanted\n")


def test_a_node_that_was_made_elsewhere_is_adopted_as_it_is(nodes: Desk) -> None:
    before = agents(nodes)
    assert nodes.run("rm", "-y", "n2")[0] == 0
    words = nodes.flags("n2")
    assert nodes.run("adopt", *words, "n2") == (0, "n2\n")
    assert nodes.run("doctor")[1].count("as wanted") == 3
    assert agents(nodes) == before
