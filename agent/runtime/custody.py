"""Custody: what the keeper has the holder keep, and how it comes by another holder when that one dies."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable

from agent.runtime.holder import Holder
from agent.runtime.loop import ERR, HUP, IN, Loop
from agent.runtime.stdio import Streams

_NAMES = {1: "stdout", 2: "stderr"}
# Of each running container: its id, its pidfd, its stdio.
Everything = Callable[[], Iterable[tuple[str, int, Streams]]]


class Custody:
    """Owned by the loop's thread. A dead holder is replaced when its connection tells; until then nothing is kept."""

    def __init__(self, loop: Loop, holder: Holder) -> None:
        self._loop = loop
        self._holder = holder

    @property
    def pid(self) -> int:
        """The holder's, 0 for one that another keeper started."""
        return self._holder.pid

    def open(self) -> dict[str, int]:
        """What a keeper before us gave away: descriptors by "ID/NAME", now the caller's."""
        return self._holder.open()

    def keep(self, everything: Everything) -> None:
        """Give away all there is, again to each holder that has to be started."""
        for container, pidfd, streams in everything():
            self.give(container, pidfd, streams)
        fd = self._holder.fileno()

        def died(_: int) -> None:
            self._loop.forget(fd)
            for stale in self._holder.open().values():
                os.close(stale)
            self.keep(everything)

        self._loop.watch(fd, HUP | ERR | IN, died)

    def give(self, container: str, pidfd: int, streams: Streams) -> None:
        """Copies of what one container needs when the next keeper adopts it. A terminal is one descriptor for all."""
        held = {"pidfd": pidfd}
        if streams.terminal >= 0:
            held["terminal"] = streams.terminal
        else:
            held |= {_NAMES[stream]: fd for fd, stream in streams.sources.items()}
            if streams.stdin >= 0:
                held["stdin"] = streams.stdin
        with contextlib.suppress(OSError):
            self._holder.put({f"{container}/{name}": fd for name, fd in held.items()})

    def drop(self, key: str) -> None:
        """Have the copy under `key` closed, or all below one that ends in a slash."""
        with contextlib.suppress(OSError):
            self._holder.drop(key)
