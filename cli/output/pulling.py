"""How a pull or a push looks while it runs: a line per layer, redrawn on a terminal; elsewhere each change once, and
nothing that counts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TextIO

from cli.output.screen import Screen, bar
from cli.output.words import decimal_size
from shoal.v1 import engine_pb2

_BAR = 50
_WIDE = 110
# What has a bar.
_COUNTED = ("Downloading", "Extracting", "Compressing", "Pushing")


class Pulling:
    """Feed it each layer's progress. Where there is no room for all, those are drawn whose bytes move."""

    def __init__(self, out: TextIO) -> None:
        self._screen = Screen(out)
        self._layers: dict[str, engine_pb2.LayerProgress] = {}

    def layer(self, progress: engine_pb2.LayerProgress) -> None:
        """Show that a layer came further."""
        before = self._layers.get(progress.id)
        self._layers[progress.id] = progress
        if self._screen.live:
            lines = self._lines(self._layers.values())
            if len(lines) > self._screen.rows:
                moving = [each for each in self._layers.values() if each.status in _COUNTED]
                lines = self._lines(moving) or lines
            self._screen.draw(lines)
        elif progress.status not in _COUNTED and (before is None or before.status != progress.status):
            self._screen.say(f"{progress.id}: {progress.status}")

    def end(self) -> None:
        """Nothing more comes; all layers are shown, where there was no room for them before."""
        if self._screen.live and self._layers:
            self._screen.settle(self._lines(self._layers.values()))

    def _lines(self, layers: Iterable[engine_pb2.LayerProgress]) -> list[str]:
        wide = self._screen.width > _WIDE
        return [line(each, wide=wide) for each in layers]


def line(progress: engine_pb2.LayerProgress, *, wide: bool) -> str:
    """One layer's line; with a bar while bytes move."""
    text = f"{progress.id}: {progress.status}"
    if not progress.total_bytes or progress.status not in _COUNTED:
        return text
    amount = f"{decimal_size(progress.current_bytes, 4):>8}/{decimal_size(progress.total_bytes, 4)}"
    drawn = f" {bar(progress.current_bytes, progress.total_bytes, _BAR)}" if wide else ""
    return f"{text}{drawn} {amount}"
