"""Pace: how fast one node may go on, so that one that floods its manager slows down nobody but itself."""

from __future__ import annotations

from collections.abc import Set

from shoal.errors import Exhausted

# Sessions that a node may open in a minute.
OPENINGS = 30


class Pace:
    """`burst` at once, and `per_s` in the long run. Times are monotonic seconds."""

    def __init__(self, *, burst: float, per_s: float) -> None:
        self._burst = burst
        self._per_s = per_s
        self._left = burst
        self._at = 0.0

    def take(self, count: float, now: float) -> float:
        """Take `count`; how many seconds to wait before going on. What is above the pace is owed, not refused."""
        self._refill(now)
        self._left -= count
        return max(0.0, -self._left / self._per_s)

    def allows(self, now: float) -> bool:
        """Take one, if there is one left."""
        self._refill(now)
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def _refill(self, now: float) -> None:
        self._left = min(self._burst, self._left + max(0.0, now - self._at) * self._per_s)
        self._at = now


class Openings:
    """The sessions that nodes open."""

    def __init__(self) -> None:
        self._paces: dict[str, Pace] = {}

    def count(self, node_id: str, now: float, *, among: Set[str]) -> None:
        """One more. Raises Exhausted for a node that opens them faster than any agent would; those that are not `among`
        the cluster's nodes any more are forgotten."""
        pace = self._paces.get(node_id)
        if pace is None:
            if len(self._paces) > 2 * len(among):
                self._paces = {id: each for id, each in self._paces.items() if id in among}
            pace = self._paces[node_id] = Pace(burst=OPENINGS, per_s=OPENINGS / 60)
        if not pace.allows(now):
            raise Exhausted(
                f"node {node_id} opens more than {OPENINGS} sessions in a minute",
                hint="does a second agent run with its identity?",
            )
