"""Ranges of host ids for containers that have a user namespace (`--userns=auto`). Pure.

A container's record says which range is its own, so that one is taken and given back with the record, whoever is
killed in between. The ranges lie where neither distributions (`/etc/login.defs`, `/etc/subuid`) nor systemd
(uid-range(8)) hand out ids.
"""

from __future__ import annotations

from collections.abc import Collection

from shoal.errors import Exhausted

FIRST, END = 0x7000_0000, 0x7FFF_0000
SIZE = 0x1_0000


def free_range(taken: Collection[int]) -> int:
    """The first id of a range that is not among `taken`. Raises Exhausted when there is none left."""
    found = next((first for first in range(FIRST, END, SIZE) if first not in taken), 0)
    if not found:
        raise Exhausted(
            f"all {len(taken)} ranges of ids for user namespaces are taken",
            hint="remove containers, or use --userns=host",
        )
    return found
