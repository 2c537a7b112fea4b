"""The ledger: what a client knows of the services that it wrote, by what was acknowledged. Pure.

A write that was acknowledged holds. One that failed without a word of whether it was done leaves two possibilities,
until a look at the cluster settles which; one that was refused changed nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Wish(NamedTuple):
    """A service as it was asked for."""

    revision: int
    replicas: int


class Ledger:
    def __init__(self) -> None:
        self._possible: dict[str, set[Wish | None]] = {}
        self.acknowledged = 0
        self.unknown = 0

    def of(self, name: str) -> set[Wish | None]:
        """What the service may be now; None is that there is none."""
        return self._possible.get(name, {None})

    def sure(self, name: str) -> bool:
        return len(self.of(name)) == 1

    def acknowledge(self, name: str, wish: Wish | None) -> None:
        self._possible[name] = {wish}
        self.acknowledged += 1

    def doubt(self, name: str, wish: Wish | None) -> None:
        self._possible[name] = {*self.of(name), wish}
        self.unknown += 1

    def settle(self, seen: Mapping[str, Wish]) -> list[str]:
        """Compare with what the cluster shows when nothing is under way; what was in doubt is as seen from now on.
        Answers what cannot be."""
        wrong = []
        for name in sorted({*self._possible, *seen}):
            found = seen.get(name)
            if found in self.of(name):
                self._possible[name] = {found}
            else:
                may = " or ".join(str(each) for each in self.of(name))
                wrong.append(f"service {name} is {found}, acknowledged was {may}")
        return wrong
