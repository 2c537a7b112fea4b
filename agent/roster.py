"""Roster: the managers that a node knows, and which one it calls next. Pure.

Nodes spread over managers by chance: each begins with any of them, and when one comes (back) that serves, as many
nodes move to it as make its share. Those that serve are called before those that are silent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence


class Roster:
    """`chance` gives 0…1. Never empty, unless it begins so."""

    def __init__(self, managers: Sequence[str], *, chance: Callable[[], float]) -> None:
        self._chance = chance
        self._order = self._shuffled(managers)
        self._serving: frozenset[str] | None = None

    @property
    def managers(self) -> tuple[str, ...]:
        """ "ADDR:PORT", the one to call next first."""
        return tuple(self._order)

    def beside(self, manager: str) -> str:
        """The one to call next that is not `manager`, or `manager` where there is no other."""
        return next((each for each in self._order if each != manager), manager)

    def lost(self, manager: str) -> None:
        """It did not answer, or does not any more."""
        if manager in self._order:
            self._order.remove(manager)
            self._order.append(manager)
        self._serving = None

    def summoned(self, managers: Sequence[str]) -> None:
        """One that serves called, and says that these are the ones to call."""
        self._order = [*self._shuffled(managers), *(each for each in self._order if each not in managers)]

    def learn(self, managers: Sequence[str], serving: int, *, connected: str) -> bool:
        """Take over what the manager `connected` says: all there are, the first `serving` of which serve. True when
        the node shall move, to the one that is called next."""
        if not managers:
            return False
        now = frozenset(managers[:serving])
        come = now - self._serving - {connected} if self._serving is not None else frozenset()
        self._serving = now
        others = self._shuffled([each for each in managers[:serving] if each != connected])
        silent = [each for each in managers[serving:] if each != connected]
        others.sort(key=lambda each: each not in come)
        # One that the cluster does not name is not called again.
        named = [connected] if connected in managers else []
        self._order = [*named, *others, *silent]
        return bool(come) and self._chance() < len(come) / len(now)

    def _shuffled(self, managers: Sequence[str]) -> list[str]:
        return sorted(managers, key=lambda _: self._chance())
