"""Coming into the cluster, being refused, and reaching it from elsewhere."""

from __future__ import annotations

import pytest

from tests.cluster.conftest import Lab, eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


@pytest.mark.parametrize(
    ("token", "sentence"),
    [
        ("nonsense", "token"),
        ("SHTKN-1-" + "0" * 50 + "-" + "0" * 25, "CA"),
    ],
)
def test_wrong_token_is_refused_in_a_sentence(cluster: Lab, token: str, sentence: str) -> None:
    done = cluster.on("n2", "shoal", "swarm", "join", "--token", token, f"{cluster.addresses['n1']}:2377")
    assert done.returncode == 1
    assert sentence in done.stderr or "already part of a swarm" in done.stderr
    assert "Traceback" not in done.stderr


def test_leave_and_join_again(clean: Lab) -> None:
    clean.shoal("n1", "service", "create", "--name", "web", "--replicas", "3", "web:1")
    clean.shoal("n3", "swarm", "leave")
    eventually(lambda: "Down" in clean.node_state("n3"), what="n3 down at once")
    eventually(lambda: len(clean.running("web")) == 3 and not clean.shoal("n3", "ps", "-q"), what="its tasks elsewhere")
    old = clean.shoal("n1", "node", "ls", "-q", "--filter", "name=n3")
    clean.shoal("n1", "node", "rm", old)
    wrong = clean.on(
        "n3", "shoal", "swarm", "join", "--token", "SHTKN-1-" + "0" * 50 + "-" + "0" * 25, "198.18.255.1:2377"
    )
    assert wrong.returncode == 1, wrong
    token = clean.shoal("n1", "swarm", "join-token", "-q", "worker")
    bad = clean.on("n3", "shoal", "swarm", "join", "--token", token[:-25] + "0" * 25, f"{clean.addresses['n1']}:2377")
    assert bad.returncode == 1
    assert "token" in bad.stderr
    clean.shoal("n3", "swarm", "join", "--token", token, f"{clean.addresses['n1']}:2377")
    eventually(lambda: clean.node_state("n3") == "Ready", what="n3 back")


def test_worker_says_where_the_managers_are(cluster: Lab) -> None:
    done = cluster.on("n2", "shoal", "service", "ls")
    assert done.returncode == 1
    assert "not a swarm manager" in done.stderr


def test_manager_is_reached_over_tls_and_relays_to_nodes(clean: Lab) -> None:
    listed = clean.on("n1", "shoal", "-H", f"{clean.addresses['n1']}:2377", "node", "ls")
    assert listed.returncode == 0, listed.stderr
    refused = clean.on("n2", "shoal", "-H", f"{clean.addresses['n1']}:2377", "node", "ls")
    assert refused.returncode == 1
    assert "worker" in refused.stderr.lower()


def test_version_tells_client_agent_and_manager(cluster: Lab) -> None:
    out = cluster.shoal("n1", "version")
    assert {"Client", "Agent", "Manager"} <= {word.strip(": ") for word in out.split()}
