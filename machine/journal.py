"""Journal: every command that was run on a host, one line of JSON each; secrets are not in it."""

from __future__ import annotations

import json
import os
from pathlib import Path

from machine.provision.step import Command
from shoal.clock import Clock


class Journal:
    """Appends to one file of this user's; several runs may do so at once."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock

    def note(self, machine: str, step: str, command: Command, *, code: int, seconds: float) -> None:
        """Write one line, whole or not at all."""
        line = {
            "at_ns": self._clock.now_ns(),
            "machine": machine,
            "step": step,
            "command": command.shown(),
            "code": code,
            "ms": round(seconds * 1000),
        }
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, (json.dumps(line, ensure_ascii=False) + "\n").encode())
        finally:
            os.close(descriptor)
