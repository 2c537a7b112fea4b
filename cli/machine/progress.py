"""What hosts are doing, while they do it: a table that is drawn again on a terminal, a line per step elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import TextIO

from cli.output.screen import Screen
from machine.provision.step import AnyStep


class Board:
    """One row per machine. Any thread may tell of its host."""

    def __init__(self, machines: Sequence[str], out: TextIO) -> None:
        self._screen = Screen(out)
        self._turn = threading.Lock()
        self._done = dict.fromkeys(machines, 0)
        self._text = dict.fromkeys(machines, "waits")
        self._began: dict[str, float] = {}
        self._width = max(map(len, machines), default=0)

    def tell(self, machine: str, step: AnyStep, state: str) -> None:
        """`state` is "doing", "done" or why it failed."""
        with self._turn:
            if state == "doing":
                self._began[machine] = time.monotonic()
            self._done[machine] += state == "done"
            self._text[machine] = self._words(machine, step, state)
            if self._screen.live:
                self._screen.draw(
                    [f"{name:{self._width}}  {self._done[name]:2} {self._text[name]}" for name in self._text]
                )
            elif state != "doing":
                self._screen.say(f"{machine:{self._width}}  {self._text[machine]}")

    def _words(self, machine: str, step: AnyStep, state: str) -> str:
        if state == "doing":
            return f"… {step.title}"
        if state == "done":
            return f"✓ {step.title} ({time.monotonic() - self._began[machine]:.1f} s)"
        return f"✗ {step.title}: {state}"
