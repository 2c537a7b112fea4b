"""VXLAN network identifiers: one per overlay, from swarm's first one up."""

from __future__ import annotations

from collections.abc import Collection, Iterator

FIRST = 4096
LAST = (1 << 24) - 1


def free(taken: Collection[int]) -> Iterator[int]:
    """Those that no network has, lowest first."""
    return (number for number in range(FIRST, LAST + 1) if number not in taken)
