"""How a build looks while it runs: as lines that stay (`plain`), or as a block that is drawn again (`tty`)."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol, TextIO

from cli.output.screen import Screen
from shoal.errors import InvalidArgument
from shoal.v1 import build_pb2

_TAIL = 6
_KEPT = 200
_TICK_S = 0.2
KINDS = ("auto", "plain", "tty", "quiet")


class Progress(Protocol):
    """Fed with what the agent tells, and now and then with nothing but the time (`tick`); `end` is told whether it went
    well."""

    def step(self, step: build_pb2.BuildStep) -> None: ...
    def output(self, output: build_pb2.BuildOutput) -> None: ...
    def step_end(self, end: build_pb2.BuildStepEnd) -> None: ...
    def tick(self) -> None: ...
    def end(self, *, failed: bool) -> None: ...


def progress(kind: str, out: TextIO) -> Progress:
    """Raises InvalidArgument for a kind that there is not."""
    if kind not in KINDS:
        raise InvalidArgument(f"invalid progress output {kind!r}", hint=f"use one of {', '.join(KINDS)}")
    if kind == "quiet":
        return Quiet(out)
    if kind == "tty" or (kind == "auto" and Screen(out).live):
        return Drawn(out)
    return Plain(out)


@asynccontextmanager
async def ticking(shown: Progress) -> AsyncIterator[None]:
    """Steps that say nothing are seen to go on."""

    async def tick() -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            shown.tick()

    task = asyncio.create_task(tick())
    try:
        yield
    finally:
        task.cancel()


class _Step:
    """What is known of one step."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.began_s = time.monotonic()
        self.ended: build_pb2.BuildStepEnd | None = None
        self.lines: deque[str] = deque(maxlen=_KEPT)
        self.rest: dict[bool, bytes] = {}

    def feed(self, output: build_pb2.BuildOutput) -> list[str]:
        """The whole lines that this brought, each with its second."""
        *whole, self.rest[output.stderr] = (self.rest.get(output.stderr, b"") + output.data).split(b"\n")
        return self._timed(whole)

    def finish(self, end: build_pb2.BuildStepEnd) -> list[str]:
        """What was no line yet."""
        self.ended = end
        rest = [each for each in self.rest.values() if each]
        self.rest.clear()
        return self._timed(rest)

    def _timed(self, lines: list[bytes]) -> list[str]:
        """Of a line that was written over (a carriage return), what was there last."""
        passed = time.monotonic() - self.began_s
        shown = [each.rstrip(b"\r").rpartition(b"\r")[2].decode(errors="replace") for each in lines]
        timed = [f"{passed:.3f} {each}" for each in shown]
        self.lines.extend(timed)
        return timed


class Plain:
    """Each step has a number; lines of several that run at once stand between each other's."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._steps: dict[int, _Step] = {}

    def step(self, step: build_pb2.BuildStep) -> None:
        self._steps[step.number] = _Step(step.title)
        self._say(step.number, step.title)

    def output(self, output: build_pb2.BuildOutput) -> None:
        for line in self._steps[output.number].feed(output):
            self._say(output.number, line)

    def step_end(self, end: build_pb2.BuildStepEnd) -> None:
        for line in self._steps[end.number].finish(end):
            self._say(end.number, line)
        self._say(end.number, outcome(end))
        print(file=self._out)

    def tick(self) -> None:
        """What stays is written once."""

    def end(self, *, failed: bool) -> None:
        if failed:
            print(*failure(self._steps.values()), sep="\n", end="", file=self._out)
        self._out.flush()

    def _say(self, number: int, text: str) -> None:
        print(f"#{number} {text}", file=self._out, flush=True)


class Quiet(Plain):
    """Nothing, unless it goes wrong."""

    def _say(self, number: int, text: str) -> None:  # noqa: ARG002
        return

    def step_end(self, end: build_pb2.BuildStepEnd) -> None:
        self._steps[end.number].finish(end)


class Drawn:
    """A line per step, and the last lines of those that run."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._screen = Screen(out)
        self._steps: dict[int, _Step] = {}
        self._began_s = time.monotonic()

    def step(self, step: build_pb2.BuildStep) -> None:
        self._steps[step.number] = _Step(step.title)
        self._draw()

    def output(self, output: build_pb2.BuildOutput) -> None:
        if self._steps[output.number].feed(output):
            self._draw()

    def step_end(self, end: build_pb2.BuildStepEnd) -> None:
        self._steps[end.number].finish(end)
        self._draw()

    def tick(self) -> None:
        self._draw()

    def end(self, *, failed: bool) -> None:
        self._screen.settle(self._lines([*self._steps.values()]))
        if failed:
            print(*failure(self._steps.values()), sep="\n", end="", file=self._out)
        self._out.flush()

    def _draw(self) -> None:
        """Where there is no room for all, what has ended longest ago is left out first."""
        steps = [*self._steps.values()]
        lines = self._lines(steps)
        ended = [each for each in steps if each.ended is not None]
        for each in ended[: max(0, len(lines) - self._screen.rows)]:
            steps.remove(each)
        self._screen.draw(self._lines(steps))

    def _lines(self, steps: Sequence[_Step]) -> list[str]:
        done = sum(each.ended is not None for each in self._steps.values())
        lines = [f"[+] Building {time.monotonic() - self._began_s:.1f}s ({done}/{len(self._steps)})"]
        for each in steps:
            lines.append(f" => {state(each)}{each.title}")
            if each.ended is None:
                lines += [f" => => {line.partition(' ')[2]}" for line in list(each.lines)[-_TAIL:]]
        return lines


def state(step: _Step) -> str:
    if step.ended is None:
        return f"{time.monotonic() - step.began_s:.1f}s… "
    return "CACHED " if step.ended.cached else "ERROR " if step.ended.failed else f"{step.ended.taken_ns / 1e9:.1f}s "


def outcome(end: build_pb2.BuildStepEnd) -> str:
    return "ERROR" if end.failed else "CACHED" if end.cached else f"DONE {end.taken_ns / 1e9:.1f}s"


def failure(steps: object) -> list[str]:
    """What the steps that failed wrote last."""
    lines: list[str] = []
    for each in steps:  # type: ignore[attr-defined]
        if each.ended is not None and each.ended.failed:
            lines += ["------", f" > {each.title}:", *each.lines, "------"]
    return [*lines, ""] if lines else []
