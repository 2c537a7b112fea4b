"""What all values of the vocabulary share: how they are laid out, and `Meta`.

Times are nanoseconds since the epoch, UTC (0: not yet); sizes are bytes; CPU is nano-CPUs (1e9 is one core).
"""

from __future__ import annotations

import msgspec


class Value(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A frozen value, kept by the store as an array: new fields go to the end and have defaults."""


class Meta(Value, frozen=True):
    """Who a record is. `version` is the store's revision of its last write; 0 before the first."""

    id: str = ""
    version: int = 0
    created_at_ns: int = 0
    updated_at_ns: int = 0


class Resources(Value, frozen=True):
    """An amount of a host's capacity; 0 means unlimited in a limit, nothing in a reservation."""

    nano_cpus: int = 0
    memory_bytes: int = 0
    pids: int = 0
