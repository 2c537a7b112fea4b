"""Limiter: slows down who guesses join tokens, from wherever it does."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict

from shoal.access import address_of
from shoal.errors import Exhausted


class Limiter:
    """Wrong tokens per source: `burst` at once, then one every `every_s`. Bounded to `sources` of them.

    A source is an IPv4 address or an IPv6 /64, the least that one host is given. Who is over the limit is refused
    before the token is looked at; a right token does not count.
    """

    def __init__(self, *, burst: int = 10, every_s: float = 6.0, sources: int = 10_000) -> None:
        self._burst = burst
        self._every_s = every_s
        self._sources = sources
        # Source → (wrong ones that still count, when that was so); the longest untouched first.
        self._wrong: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def check(self, source: str, now: float) -> None:
        """`now` is monotonic seconds. Raises Exhausted while `source` is over the limit."""
        if self._count(source, now) > self._burst - 1:
            raise Exhausted(f"too many wrong join tokens from {source}", hint="wait a minute and try again")

    def wrong(self, source: str, now: float) -> None:
        """Count a wrong token from `source`."""
        self._wrong[source] = (self._count(source, now) + 1, now)
        self._wrong.move_to_end(source)
        while len(self._wrong) > self._sources:
            self._wrong.popitem(last=False)

    def _count(self, source: str, now: float) -> float:
        count, at = self._wrong.get(source, (0.0, now))
        return max(0.0, count - (now - at) / self._every_s)


def source_of(peer: str) -> str:
    """The source in gRPC's name of a peer ("ipv4:1.2.3.4:5", "ipv6:%5B::1%5D:5")."""
    try:
        address = ipaddress.ip_address(address_of(peer))
    except ValueError:
        return peer
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
