"""A keeper's log path, killed before any line of our code that one names: what `test_mark` runs in a small process.

Forking a large one, once for each line, takes too long.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.kernel import aio
from agent.runtime import flow, journal, logfile, mark, stdio, tap
from agent.runtime.flow import Flow
from agent.runtime.journal import Journal
from agent.runtime.logfile import LogFile
from agent.runtime.loop import Loop
from agent.runtime.mark import Mark
from agent.runtime.stdio import Stdio, Streams
from agent.runtime.tap import Tap

WATCHED = {module.__file__ for module in (aio, flow, journal, logfile, mark, stdio, tap)}
# Being killed while they compute is as being killed before.
PURE = {
    "_piecemeal",
    "_whole",
    "_in_json",
    "_cut",
    "whole",
    "_batch",
    "_long",
    "_tail",
    "_after",
    "_field",
    "pieces_of",
    "timestamp",
}
FIRST = {1: b"one\ntwo\n" + b"three\nfo", 2: b"odd \xff\n\n" + b"z" * 40 + b"\nlo"}
THEN = {1: b"ur\nfive\n", 2: b"ng\nlast"}
# Rounds of a flow and some more; no two lines are alike.
MUCH, MORE = (
    [b"".join(b"%03d %s\n" % (number, b"x" * 995) for number in part) for part in (range(end), range(end, end + 10))]
    for end in (320, 980)
)
MakeLog = Callable[[Path], LogFile]


class Container:
    """Its two FIFOs, which outlive every keeper, and the folder with its mark and its log."""

    def __init__(self, folder: Path, make: MakeLog, words: tuple[dict[int, bytes], ...] = (FIRST, THEN)) -> None:
        self.folder = folder
        self.make = make
        self.words = words
        self.ends = {}
        for stream in (1, 2):
            os.mkfifo(folder / f"fifo.{stream}")
            self.ends[stream] = os.open(folder / f"fifo.{stream}", os.O_RDWR)
            fcntl.fcntl(self.ends[stream], fcntl.F_SETPIPE_SZ, 1 << 20)

    def says(self, words: dict[int, bytes]) -> None:
        for stream, data in words.items():
            os.write(self.ends[stream], data)

    def is_kept(self, *, to_the_end: bool, steps: int = 0, turns: int = 1) -> bool:
        """By a keeper that is killed before its step number `steps` (0: never); whether it was."""
        pid = os.fork()
        if not pid:
            self._keep(to_the_end=to_the_end, steps=steps, turns=turns)
        status = os.waitpid(pid, 0)[1]
        assert status in (0, signal.SIGKILL)
        return bool(status)

    def _keep(self, *, to_the_end: bool, steps: int, turns: int) -> None:
        try:
            kept = Stdio(Loop(0), Flow(Tap()))
            sys.settrace(_killer(steps) if steps else None)
            fds = {os.open(self.folder / f"fifo.{stream}", os.O_RDONLY | os.O_NONBLOCK): stream for stream in (1, 2)}
            kept.open(Streams(fds, -1, -1), self.make(self.folder))
            if to_the_end:
                kept.drain()
            else:
                for fd in fds:
                    for _ in range(turns):
                        kept._reader(fd)(0)  # as the loop would
            os._exit(0)
        finally:
            os._exit(1)

    def lives(self, killed_at: int, between: Callable[[], None], turns: int = 1) -> bool:
        """It speaks, speaks again and ends; its keeper is killed twice, unless it comes to an end before. Whether it
        was."""
        self.says(self.words[0])
        killed = self.is_kept(to_the_end=False, steps=killed_at, turns=turns)
        between()
        self.says(self.words[1])
        if self.is_kept(to_the_end=True, steps=killed_at):
            between()
            self.is_kept(to_the_end=True)
            killed = True
        between()
        for fd in self.ends.values():
            os.close(fd)
        return killed


def _killer(steps: int) -> Callable[..., Any]:
    left = [steps]

    def local(_frame: Any, event: str, _arg: Any) -> Any:
        if event == "line":
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
        return local

    def called(frame: Any, _event: str, _arg: Any) -> Any:
        return local if frame.f_code.co_filename in WATCHED and frame.f_code.co_name not in PURE else None

    return called


def logged(folder: Path) -> dict[int, str]:
    files = sorted(folder.glob("log*"), key=lambda path: -int(path.suffix[1:] or 0))
    texts = {"stdout": "", "stderr": ""}
    for path in files:
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            texts[entry["stream"]] += entry["log"]
    return {1: texts["stdout"], 2: texts["stderr"]}


SAID = {stream: (FIRST[stream] + THEN[stream]).decode(errors="replace") for stream in (1, 2)}


def in_a_file(top: Path) -> int:
    """A log that is rotated on the way. Returns how many lines there were to be killed at."""

    def make(folder: Path) -> LogFile:
        return LogFile(str(folder / "log"), 160, 30, mark=Mark(str(folder / "mark")))

    for killed_at in range(1, 10_000):
        folder = top / str(killed_at)
        folder.mkdir()
        container = Container(folder, make)
        killed = container.lives(killed_at, lambda: None)
        assert logged(folder) == SAID, killed_at
        if not killed:
            return killed_at
    raise AssertionError("it never came to its end")


def in_a_flow(top: Path) -> int:
    """A log that is rotated in the midst of it; the keeper takes three turns, if it is not killed before."""
    return _flowing(top, MUCH, 150_000)


def in_a_flow_of_one_file(top: Path) -> int:
    """Each round goes to the disk before the one before it is over."""
    return _flowing(top, MORE, 0)


def _flowing(top: Path, said: list[bytes], max_bytes: int) -> int:
    def make(folder: Path) -> LogFile:
        return LogFile(str(folder / "log"), max_bytes, 30, mark=Mark(str(folder / "mark")))

    for killed_at in range(1, 10_000):
        folder = top / str(killed_at)
        folder.mkdir()
        container = Container(folder, make, tuple({1: each} for each in said))
        killed = container.lives(killed_at, lambda: None, turns=3)
        assert logged(folder)[1].encode() == b"".join(said), killed_at
        shutil.rmtree(folder)
        if not killed:
            return killed_at
    raise AssertionError("it never came to its end")


def in_the_journal(top: Path) -> int:
    """Every entry is there; one that was sent as the keeper was killed may be there again."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(str(top / "socket"))
    listener.setblocking(False)

    def make(folder: Path) -> LogFile:
        return Journal({}, mark=Mark(str(folder / "mark")), path=str(top / "socket"))

    whole = Counter(line for said in (FIRST[1] + THEN[1], FIRST[2] + THEN[2]) for line in said.splitlines())
    doubled = 0
    for killed_at in range(1, 10_000):
        folder = top / str(killed_at)
        folder.mkdir()
        container = Container(folder, make)
        entries = Counter[bytes]()

        def receive(entries: Counter[bytes] = entries) -> None:
            while True:
                try:
                    entry = listener.recv(1 << 16)
                except BlockingIOError:
                    return
                entries[entry.split(b"MESSAGE=", 1)[1].split(b"\n")[0]] += 1

        killed = container.lives(killed_at, receive)
        assert not whole - entries, (killed_at, entries)
        doubled = max(doubled, (entries - whole).total())
        if not killed:
            assert doubled <= 2, "more than one for each time that a keeper was killed"
            return killed_at
    raise AssertionError("it never came to its end")


if __name__ == "__main__":
    lives = {"file": in_a_file, "flow": in_a_flow, "one file": in_a_flow_of_one_file, "journal": in_the_journal}
    print(lives[sys.argv[1]](Path(sys.argv[2])))
