"""Who may do what in a real cluster, from a host that is no member of it; and what is left behind of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from tests.cluster.conftest import Lab, eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


@pytest.fixture
def ann(clean: Lab) -> Iterator[list[str]]:
    """The flags by which ann, a viewer, calls the manager from n3."""
    clean.shoal("n1", "swarm", "user", "create", "--role", "viewer", "-o", "/root/ann", "ann")
    for name in ("ca.pem", "cert.pem", "key.pem"):
        text = clean.on("n1", "cat", f"/root/ann/{name}").stdout
        assert clean.on("n3", "sh", "-c", f"mkdir -p /root/ann; cat > /root/ann/{name}", stdin=text).returncode == 0
    files = ["--tlscacert", "/root/ann/ca.pem", "--tlscert", "/root/ann/cert.pem", "--tlskey", "/root/ann/key.pem"]
    yield ["-H", f"{clean.addresses['n1']}:2377", *files]
    clean.on("n1", "shoal", "swarm", "user", "rm", "ann")
    for host in ("n1", "n3"):
        clean.on(host, "rm", "-rf", "/root/ann")


def test_a_users_role_holds_from_anywhere_and_at_once(clean: Lab, ann: list[str]) -> None:
    assert "n2" in clean.shoal("n3", *ann, "node", "ls")
    refused = clean.on("n3", "shoal", *ann, "service", "create", "--name", "web", "web:1")
    assert refused.returncode == 1
    assert "'service create' needs the role deployer, and user ann is viewer" in refused.stderr
    clean.shoal("n1", "swarm", "user", "update", "--role", "deployer", "ann")
    clean.shoal("n3", *ann, "service", "create", "--name", "web", "--replicas", "3", "web:1")
    eventually(lambda: len(clean.running("web")) == 3, what="web runs")
    task = clean.shoal("n2", "ps", "-q").split()[0]
    refused = clean.on("n3", "shoal", *ann, "--node", "n2", "exec", task, "true")
    assert "'container exec' needs the role operator" in refused.stderr
    clean.shoal("n1", "swarm", "user", "update", "--role", "operator", "ann")
    assert clean.shoal("n3", *ann, "--node", "n2", "exec", task, "echo", "hello") == "hello"
    clean.shoal("n1", "swarm", "user", "revoke", "ann")
    assert "user ann was revoked" in clean.on("n3", "shoal", *ann, "node", "ls").stderr

    lines = [json.loads(line) for line in clean.shoal("n1", "swarm", "audit", "--json", "--user", "ann").splitlines()]
    done = [(line["Verb"], line["Decision"], line["Outcome"]) for line in lines]
    assert ("service create", "allowed", "done") in done
    assert ("container exec", "allowed", "begun") in done
    assert {line["Source"] for line in lines} == {clean.addresses["n3"]}
    assert "is whole" in clean.shoal("n1", "swarm", "audit", "verify")


def test_a_counted_token_lets_one_host_in(clean: Lab) -> None:
    clean.shoal("n3", "swarm", "leave")
    eventually(lambda: "Down" in clean.node_state("n3"), what="n3 down")
    clean.shoal("n1", "node", "rm", clean.shoal("n1", "node", "ls", "-q", "--filter", "name=n3"))
    address = f"{clean.addresses['n1']}:2377"
    expired = clean.shoal("n1", "swarm", "token", "create", "-q", "--ttl", "1ms")
    late = clean.on("n3", "shoal", "swarm", "join", "--token", expired, address)
    assert (late.returncode, "has expired" in late.stderr) == (1, True), late
    token = clean.shoal("n1", "swarm", "token", "create", "-q")
    clean.shoal("n3", "swarm", "join", "--token", token, address)
    eventually(lambda: clean.node_state("n3") == "Ready", what="n3 back")
    clean.shoal("n3", "swarm", "leave")
    eventually(lambda: "Down" in clean.node_state("n3"), what="n3 down again")
    clean.shoal("n1", "node", "rm", clean.shoal("n1", "node", "ls", "-q", "--filter", "name=n3"))
    again = clean.on("n3", "shoal", "swarm", "join", "--token", token, address)
    assert (again.returncode, "has let in 1 of 1 hosts" in again.stderr) == (1, True), again
    clean.shoal("n3", "swarm", "join", "--token", clean.shoal("n1", "swarm", "join-token", "-q", "worker"), address)
    eventually(lambda: clean.node_state("n3") == "Ready", what="n3 back for good")


def test_a_removed_node_is_shut_out_everywhere(clean: Lab) -> None:
    id = clean.shoal("n1", "node", "ls", "-q", "--filter", "name=n3")
    clean.shoal("n1", "node", "rm", "--force", id)
    eventually(lambda: "was removed" in clean.shoal("n3", "info"), what="n3 knows")
    clean.shoal("n3", "swarm", "leave", "--force")
    token = clean.shoal("n1", "swarm", "join-token", "-q", "worker")
    clean.shoal("n3", "swarm", "join", "--token", token, f"{clean.addresses['n1']}:2377")
    eventually(lambda: clean.node_state("n3") == "Ready", what="n3 back")


def test_the_root_is_replaced_while_a_service_runs_one_node_is_off_and_the_manager_is_killed(clean: Lab) -> None:
    clean.shoal("n1", "service", "create", "--name", "web", "--replicas", "2", "web:1")
    eventually(lambda: len(clean.running("web")) == 2, what="web runs")
    before, token = clean.shoal("n1", "swarm", "ca"), clean.shoal("n1", "swarm", "join-token", "-q", "worker")
    clean("kill", "n3")
    eventually(lambda: "Down" in clean.node_state("n3"), what="n3 down")
    clean.shoal("n1", "swarm", "ca", "--rotate", "--detach", "--deadline", "25s")
    clean.kill_9("n1", "shoal-manager")
    eventually(lambda: clean.on("n1", "shoal", "swarm", "ca").returncode == 0, what="the manager is back")
    told = clean.shoal("n1", "swarm", "ca", "--wait")
    # Who is too busy to move in time is left behind, too, and comes back.
    assert re.search("Left behind: .*n3", told), told
    assert clean.shoal("n1", "swarm", "ca") != before
    assert clean.shoal("n1", "swarm", "join-token", "-q", "worker") != token
    for host in ("n1", "n2"):
        eventually(lambda host=host: clean.node_state(host) == "Ready", what=f"{host} ready")
    clean("start", "n3")
    eventually(lambda: clean.node_state("n3") == "Ready", what="n3 came back by its old key")
    eventually(lambda: len(clean.running("web")) == 2, what="web runs on")


def test_what_stands_on_the_disk_of_the_manager_tells_no_secret(clean: Lab) -> None:
    token = clean.shoal("n1", "swarm", "token", "create", "-q", "--ttl", "1h")
    worker = clean.shoal("n1", "swarm", "join-token", "-q", "worker")
    clean.shoal("n1", "swarm", "backup", "-o", "/root/plain.backup")
    try:
        for text in (token.rpartition("-")[2], worker.rpartition("-")[2], "BEGIN PRIVATE KEY", "BEGIN EC PRIVATE"):
            found = clean.on("n1", "grep", "-rlaF", text, "/var/lib/shoal/manager", "/root/plain.backup")
            assert found.stdout == "", f"{text[:6]}… stands in {found.stdout}"
    finally:
        clean.on("n1", "rm", "-f", "/root/plain.backup")
