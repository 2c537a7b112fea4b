"""How long to wait before trying again: exponential with full jitter, so that a thousand agents that lost the
same manager do not come back in the same second."""

from __future__ import annotations

import random
from collections.abc import Callable


class Backoff:
    """`next()` gives seconds between 0 and a bound that doubles from `base_s` to `cap_s`."""

    def __init__(self, base_s: float, cap_s: float, *, chance: Callable[[], float] = random.random) -> None:
        self._base_s = base_s
        self._cap_s = cap_s
        self._chance = chance
        self._bound_s = base_s

    def next(self) -> float:
        wait_s = self._bound_s * self._chance()
        self._bound_s = max(self._bound_s, min(self._cap_s, self._bound_s * 2))
        return wait_s

    def widen(self, bound_s: float) -> None:
        """The next waits are spread over `bound_s` at least."""
        self._bound_s = max(self._bound_s, bound_s)

    def reset(self) -> None:
        """Call after success."""
        self._bound_s = self._base_s
