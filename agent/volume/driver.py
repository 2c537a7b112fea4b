"""The port that a kind of volume implements. `agent.volume.local` is the one that keeps data on this host's disk.

A driver only makes, finds and deletes the place of the data; names, labels, who uses it and the first filling
from an image are the business of `agent.volume.volumes` and `agent.container.seed`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class Driver(Protocol):
    """Every method may block on a disk and is idempotent; callers run it in a worker."""

    def create(self, name: str) -> None:
        """Make the place of the data if it is not there."""

    def mountpoint(self, name: str) -> Path:
        """Where the data is; says nothing about whether it exists."""

    def remove(self, name: str) -> None:
        """Delete the data. After a crash half way the volume is either whole or gone."""
