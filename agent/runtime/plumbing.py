"""Plumbing: the two ends of a process's stdio, what the process gets and what the keeper keeps.

A container has FIFOs, which the next keeper finds by their paths; an exec has pipes; either may have a console instead.
`stdio` moves the bytes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from agent.kernel.descriptors import Descriptors
from agent.runtime import console
from agent.runtime.console import Console
from agent.runtime.record import Records
from agent.runtime.stdio import Streams

NOTHING = Streams({}, -1, -1)


class Ends(NamedTuple):
    """The process gets `stdio` or `console`. Who made them closes both with `opened`; the streams are the caller's."""

    stdio: tuple[int, int, int] | None
    console: Console | None
    streams: Streams

    def received(self) -> Streams:
        """The keeper's ends once the process runs: only then there is a terminal."""
        return self.streams if self.console is None else terminal_streams(self.console.receive())


class Plumber:
    """Makes them. Threads may share it. What is asked for is the `request` of a start or an exec; `owner` are the
    user and group that the process's ends belong to, so that it may open /dev/stdout again."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)

    def console(self, request: Mapping[str, Any], opened: Descriptors) -> Ends:
        made = console.new(request["rows"], request["columns"])
        opened += (made.theirs, made.ours)
        return Ends(None, made, NOTHING)

    def fifos(self, container: str, owner: tuple[int, int], request: Mapping[str, Any], opened: Descriptors) -> Ends:
        """The container's output ends are read-write: without a keeper it blocks, when the FIFO is full, but never gets
        SIGPIPE."""
        theirs, sources = [self._null], dict[int, int]()
        stdin = -1
        for stream, name in ((1, "stdout"), (2, "stderr")):
            path, both = self._fifo(container, name, owner, opened)
            theirs.append(both)
            sources[os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)] = stream
        if request["stdin"]:
            path, _ = self._fifo(container, "stdin", owner, opened)
            theirs[0] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            opened.append(theirs[0])
            stdin = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        return Ends((theirs[0], theirs[1], theirs[2]), None, Streams(sources, stdin, -1))

    def pipes(self, owner: tuple[int, int], request: Mapping[str, Any], opened: Descriptors) -> Ends:
        theirs, sources = [self._null], dict[int, int]()
        stdin = -1
        for stream in (1, 2):
            reader, writer = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(reader, False)
            _give(writer, owner)
            opened.append(writer)
            theirs.append(writer)
            sources[reader] = stream
        if request["stdin"]:
            theirs[0], stdin = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(stdin, False)
            _give(theirs[0], owner)
            opened.append(theirs[0])
        return Ends((theirs[0], theirs[1], theirs[2]), None, Streams(sources, stdin, -1))

    def _fifo(self, container: str, name: str, owner: tuple[int, int], opened: Descriptors) -> tuple[str, int]:
        """(its path, a descriptor that reads and writes)."""
        path = self._records.path(container, name)
        os.mkfifo(path, 0o600)
        both = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        opened.append(both)
        _give(both, owner)
        return path, both


def terminal_streams(master: int) -> Streams:
    """One descriptor to read, one to write and one to resize: the loop watches each for itself."""
    return Streams({master: 1}, os.dup(master), os.dup(master))


def _give(fd: int, owner: tuple[int, int]) -> None:
    if any(owner):
        os.fchown(fd, *owner)
