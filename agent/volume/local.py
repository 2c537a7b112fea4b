"""Volumes in a folder of this host: `FOLDER/NAME/_data`, beside the record that `agent.volume.volumes` keeps.

A volume is deleted by renaming it into `.trash` first, so that a crash leaves a whole volume or none; what lies
in the trash is swept by the next `open`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from shoal.errors import InvalidArgument, Unsupported

_OPTIONS = ("device", "o", "type")
TRASH = ".trash"


def check_options(options: Mapping[str, str]) -> None:
    """Raises InvalidArgument for what is no option, Unsupported for a filesystem that would have to be mounted."""
    for name in options:
        if name not in _OPTIONS:
            raise InvalidArgument(f'invalid option: "{name}"', hint=f"there are: {', '.join(_OPTIONS)}")
    if not options:
        return
    if "bind" not in options.get("o", "").split(",") or options.get("type", "none") not in ("none", "bind"):
        kind = options.get("type") or "none"
        raise Unsupported(
            f"volume type {kind} with o={options.get('o', '')} is not supported yet",
            hint="use type=none, o=bind, device=FOLDER",
        )
    if not options.get("device", "").startswith("/"):
        raise InvalidArgument(f"missing device in volume options: {options.get('device', '')!r} is no absolute path")


def folder_of(options: Mapping[str, str]) -> str:
    """The host's folder that stands in a volume's place; empty where none does."""
    return options.get("device", "")


class Local:
    """Docker's `local` driver; of its mount options, the ones for a folder of the host."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def create(self, name: str) -> None:
        self.mountpoint(name).mkdir(mode=0o755, parents=True, exist_ok=True)

    def mountpoint(self, name: str) -> Path:
        return self._folder / name / "_data"

    def remove(self, name: str) -> None:
        doomed = self._folder / TRASH / f"{name}.{os.urandom(6).hex()}"
        with contextlib.suppress(FileNotFoundError):
            (self._folder / name).rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)

    def sweep(self) -> None:
        """Delete what a crash left in the trash, which is there from then on."""
        shutil.rmtree(self._folder / TRASH, ignore_errors=True)
        (self._folder / TRASH).mkdir(exist_ok=True)
