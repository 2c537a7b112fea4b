"""Labels: what the nodes have at one key, in a column of numbers, so that a constraint is one comparison of all."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from manager.control.constraint import Constraint, found
from shoal.model.node import Node

Column: TypeAlias = npt.NDArray[np.int64]
Mask: TypeAlias = npt.NDArray[np.bool_]


class Labels:
    """The nodes' texts at `key`, by place; `size` places."""

    def __init__(self, key: str, size: int, nodes: list[Node | None]) -> None:
        self._key = key
        self._numbers: dict[str, int] = {}
        self._folded: dict[str, list[int]] = {}
        self._column = np.zeros(size, np.int64)
        self._number("")
        for place, node in enumerate(nodes):
            self.put(place, node)

    def put(self, place: int, node: Node | None) -> None:
        """At `place` is this node now; None: none."""
        self._column[place] = self._number(found(self._key, node) if node else "")

    def numbers(self, places: Column) -> Column:
        """Equal for equal texts, and in the order of the texts."""
        texts = list(self._numbers)
        order = np.empty(len(texts), np.int64)
        order[sorted(range(len(texts)), key=texts.__getitem__)] = np.arange(len(texts))
        ranked: Column = order[self._column[places]]
        return ranked

    def allowed(self, constraint: Constraint) -> Mask:
        """At which places `constraint`, which is about this key, holds."""
        if constraint.key == "node.ip":
            met: Mask = np.array([constraint.allows(text) for text in self._numbers], np.bool_)[self._column]
            return met
        equal = np.zeros(len(self._column), np.bool_)
        for number in self._folded.get(constraint.value, ()):
            equal |= self._column == number
        return equal if constraint.equal else ~equal

    def _number(self, text: str) -> int:
        known = self._numbers.get(text)
        if known is None:
            known = self._numbers[text] = len(self._numbers)
            self._folded.setdefault(text.lower(), []).append(known)
        return known
