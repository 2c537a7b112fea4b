"""Join tokens: their form, what makes one worthless, and who guesses too often."""

from __future__ import annotations

import pytest

from agent.join import parse_token
from manager.ca.authority import Authority, Seal
from manager.ca.token import JoinToken, Limiter, fingerprint, rotated, sealed_secret, source_of, token_of
from shoal.errors import Exhausted, InvalidArgument
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


def test_who_guesses_too_often_waits(cluster: Cluster) -> None:
    limiter = Limiter(burst=3, every_s=10, sources=2)
    for _ in range(3):
        limiter.check("a", 0)
        limiter.wrong("a", 0)
    with pytest.raises(Exhausted, match="too many wrong join tokens from a"):
        limiter.check("a", 1)
    limiter.check("b", 1)
    limiter.check("a", 11)


def test_the_limiter_remembers_a_bounded_number(cluster: Cluster) -> None:
    limiter = Limiter(burst=1, every_s=10, sources=2)
    for source in "abc":
        limiter.wrong(source, 0)
    limiter.check("a", 0)
    with pytest.raises(Exhausted):
        limiter.check("c", 0)


@pytest.mark.parametrize(
    ("peer", "source"),
    [
        ("ipv4:10.0.0.7:4711", "10.0.0.7"),
        ("ipv6:%5B2001:db8::1%5D:4711", "2001:db8::/64"),
        ("ipv6:[2001:db8:0:0:ffff::9]:1", "2001:db8::/64"),
        ("ipv6:%5Bfe80::1%25eth0%5D:1", "fe80::/64"),
        ("unix:", "unix:"),
    ],
)
def test_a_source_is_what_one_host_is_given(peer: str, source: str) -> None:
    assert source_of(peer) == source
