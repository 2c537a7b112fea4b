"""A manager that starts again is locked until somebody brings the key; what runs does not wait for that."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.cluster.conftest import Lab, eventually, form_cluster, three_hosts, wait_for_mesh

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

LOCKED = (
    "Error: Swarm is encrypted and needs to be unlocked before it can be used. "
    'Please use "shoal swarm unlock" to unlock it.\n'
)


@pytest.fixture(scope="module")
def rack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A cluster of this module's own, with a service that its hosts serve."""
    with three_hosts(f"l{os.getpid() % 10000}", tmp_path_factory.mktemp("web")) as rack:
        form_cluster(rack)
        rack.shoal("n1", "service", "create", "--name", "web", "--replicas", "3", "-p", "8090:80", "web:1")
        wait_for_mesh(rack, 8090)
        yield rack


def containers(rack: Lab) -> dict[str, str]:
    return {host: rack.shoal(host, "ps", "-q", "--no-trunc") for host in ("n1", "n2", "n3")}


def test_a_locked_manager_waits_and_the_service_goes_on(rack: Lab) -> None:
    before = containers(rack)
    said = rack.shoal("n1", "swarm", "update", "--autolock=true")
    key = rack.shoal("n1", "swarm", "unlock-key", "-q")
    assert key.startswith("SHKEY-1-")
    assert key in said
    assert rack.on("n1", "shoal", "swarm", "unlock", stdin=key).stderr == "Error: swarm is not locked\n"

    rack.kill_9("n1", "bin/shoal-manager")
    eventually(lambda: rack.on("n1", "shoal", "node", "ls").stderr == LOCKED, what="the manager says that it is locked")
    assert rack.shoal("n1", "info", "--format", "{{.Swarm.LocalNodeState}}") == "locked"
    for host in ("n1", "n2", "n3"):
        assert rack.curl(host, f"http://{rack.addresses[host]}:8090/")
    wrong = rack.on("n1", "shoal", "swarm", "unlock", stdin="SHKEY-1-" + "A" * 43)
    assert wrong.stderr == "Error: swarm could not be unlocked: invalid key provided\n"

    assert rack.on("n1", "shoal", "swarm", "unlock", stdin=key).returncode == 0
    for host in ("n1", "n2", "n3"):
        eventually(lambda host=host: rack.node_state(host) == "Ready", what=f"{host} ready")
    assert containers(rack) == before
    assert len(rack.running("web")) == 3


def test_only_the_rotated_key_opens_and_without_autolock_none_is_needed(rack: Lab) -> None:
    old = rack.shoal("n1", "swarm", "unlock-key", "-q")
    new = rack.shoal("n1", "swarm", "unlock-key", "--rotate", "-q")
    rack("kill", "n1")
    rack("start", "n1")
    eventually(lambda: rack.on("n1", "shoal", "node", "ls").stderr == LOCKED, what="locked after a power cut")
    assert rack.on("n1", "shoal", "swarm", "unlock", stdin=old).returncode == 1
    assert rack.on("n1", "shoal", "swarm", "unlock", stdin=new).returncode == 0
    assert "waits for its unlock key" in rack.shoal("n1", "swarm", "init", "--force-new-cluster")
    assert rack.on("n1", "shoal", "swarm", "unlock", stdin=new).returncode == 0
    rack.shoal("n1", "swarm", "update", "--autolock=false")
    assert "no unlock key is set" in rack.on("n1", "shoal", "swarm", "unlock-key").stderr
    rack.kill_9("n1", "bin/shoal-manager")
    eventually(lambda: rack.on("n1", "shoal", "node", "ls").returncode == 0, what="the manager serves again")
