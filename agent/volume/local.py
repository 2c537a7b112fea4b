"""Volumes in a folder of this host: `FOLDER/NAME/_data`, beside the record that `agent.volume.volumes` keeps.

A volume is deleted by renaming it into `.trash` first, so that a crash leaves a whole volume or none; what lies
in the trash is swept by the next `open`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from agent.volume.filesystem import unmount

TRASH = ".trash"


class Local:
    """Docker's `local` driver."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def create(self, name: str) -> None:
        self.mountpoint(name).mkdir(mode=0o755, parents=True, exist_ok=True)

    def mountpoint(self, name: str) -> Path:
        return self._folder / name / "_data"

    def remove(self, name: str) -> None:
        unmount(self.mountpoint(name))  # or what is deleted would be the data of whoever serves it
        doomed = self._folder / TRASH / f"{name}.{os.urandom(6).hex()}"
        with contextlib.suppress(FileNotFoundError):
            (self._folder / name).rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)

    def sweep(self) -> None:
        """Delete what a crash left in the trash, which is there from then on."""
        shutil.rmtree(self._folder / TRASH, ignore_errors=True)
        (self._folder / TRASH).mkdir(exist_ok=True)
