"""The roll: who asks what containers there are, while some of them start still.

An agent that was killed may have ordered starts, of which it wrote nothing down yet. The next one must hear of them, or
nobody would ever end them: so it is answered once all have begun, or failed, that were ordered before it asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable


class Roll:
    """Owned by the loop's thread."""

    def __init__(self) -> None:
        self._waiting: list[tuple[set[str], Callable[[], None]]] = []

    def call(self, starting: Iterable[str], tell: Callable[[], None]) -> None:
        """`tell` when none of them starts any more."""
        missing = set(starting)
        if missing:
            self._waiting.append((missing, tell))
        else:
            tell()

    def answer(self, container_id: str) -> None:
        """This one starts no more."""
        told, self._waiting = self._waiting, []
        for missing, tell in told:
            missing.discard(container_id)
            self.call(missing, tell)
