"""Join tokens: their form, and what makes one worthless."""

from __future__ import annotations

import pytest

from agent.join import parse_token
from manager.ca.authority import Authority, Seal
from manager.ca.token import JoinToken, fingerprint, rotated, sealed_secret, token_of
from shoal.errors import InvalidArgument
from shoal.model.cluster import Cluster
from shoal.model.node import Role

SEAL = Seal(b"k" * 32)


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    return Cluster(
        root_ca_pem=Authority.create("c1", 1_800_000_000 * 10**9).root_ca_pem,
        sealed_worker_secret=sealed_secret(SEAL, Role.WORKER),
        sealed_manager_secret=sealed_secret(SEAL, Role.MANAGER),
    )


def test_each_role_has_its_token_which_agents_understand(cluster: Cluster) -> None:
    worker, manager = (token_of(cluster, role, SEAL) for role in (Role.WORKER, Role.MANAGER))
    assert worker.fingerprint == manager.fingerprint == fingerprint(cluster.root_ca_pem)
    assert not worker.same(manager)
    assert JoinToken.parse(f" {worker.text}\n") == worker
    assert parse_token(worker.text).root_hash == worker.fingerprint


def test_rotating_one_leaves_the_other(cluster: Cluster) -> None:
    after = rotated(cluster, Role.WORKER, SEAL)
    assert not token_of(after, Role.WORKER, SEAL).same(token_of(cluster, Role.WORKER, SEAL))
    assert token_of(after, Role.MANAGER, SEAL).same(token_of(cluster, Role.MANAGER, SEAL))


def test_a_token_does_not_show_itself(cluster: Cluster) -> None:
    token = token_of(cluster, Role.WORKER, SEAL)
    assert token.secret not in repr(token)


@pytest.mark.parametrize("text", ["", "SHTKN-1", "SHTKN-2-" + "0" * 50 + "-" + "0" * 25, "SHTKN-1-" + "A" * 50])
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="malformed"):
        JoinToken.parse(text)
