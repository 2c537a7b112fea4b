"""Who guesses join tokens too often, and what counts as one guesser."""

from __future__ import annotations

import pytest

from manager.ca.limiter import Limiter, source_of
from shoal.errors import Exhausted


def test_who_guesses_too_often_waits() -> None:
    limiter = Limiter(burst=3, every_s=10, sources=2)
    for _ in range(3):
        limiter.check("a", 0)
        limiter.wrong("a", 0)
    with pytest.raises(Exhausted, match="too many wrong join tokens from a"):
        limiter.check("a", 1)
    limiter.check("b", 1)
    limiter.check("a", 11)


def test_the_limiter_remembers_a_bounded_number() -> None:
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
