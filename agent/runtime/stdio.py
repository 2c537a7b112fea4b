"""What flows in and out of one container or exec: to its log, to whoever is attached, and back in.

Output is read once and given to the log and to every attachment. An attachment that does not keep up is given 256 KiB;
then this container's output (nobody else's) is left in the kernel until it has caught up, so that nothing is lost and
nothing grows. Input from attachments is queued the same way.

What goes to a log leaves the kernel only when it is there (`tap`, `mark`): a keeper that is killed loses none of it. An
attachment has no such promise: it gets what comes once, and what was on its way to it then is lost.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

from agent.runtime import console
from agent.runtime.flow import Flow
from agent.runtime.logfile import LogFile
from agent.runtime.loop import ERR, HUP, IN, OUT, Loop
from agent.runtime.record import ExitRecord
from agent.runtime.tap import CHUNK


class Streams(NamedTuple):
    """The keeper's ends of a process's stdio: output by descriptor, input and terminal or -1."""

    sources: dict[int, int]
    stdin: int
    terminal: int

    def close(self) -> None:
        for fd in (*self.sources, self.stdin, self.terminal):
            if fd >= 0:
                os.close(fd)


_PIPE = 64 * 1024  # what a pipe holds by itself
_WIDE = 1024 * 1024  # what one holds while it is found full: the process goes on writing while a chunk is being logged
_QUIET = 4 * 1024  # a pipe that holds no more than this is as it was: what all of root's hold together is limited
HIGH, LOW = 256 * 1024, 64 * 1024


class Attachment(Protocol):
    """Somebody who gets the output: a connection (`connection.Stream`)."""

    @property
    def pending(self) -> int: ...

    def output(self, stream: int, data: bytes) -> None: ...

    def ended(self, exit_: ExitRecord) -> None: ...

    def input_drained(self) -> None: ...


class Stdio:
    """Owned by the loop's thread. Attachments may come before `open`: they miss nothing."""

    def __init__(self, loop: Loop, flow: Flow) -> None:
        self._loop = loop
        self._flow = flow
        self._tap = flow.tap
        self._attachments: list[Attachment] = []
        self._sources: dict[int, int] = {}  # descriptor to stream number
        self._wide: set[int] = set()
        self._stdin = -1
        self._input = bytearray()
        self._stdin_ending = False
        self._writing = False
        self._paused = False
        self._terminal = -1
        self._log: LogFile | None = None
        self.stdin_closed: Callable[[], None] = lambda: None

    def open(self, streams: Streams, log: LogFile | None = None) -> None:
        """Begin to move bytes. The descriptors become ours."""
        self._log = log
        self._stdin = streams.stdin
        self._terminal = streams.terminal
        self._sources.update(streams.sources)
        if log is not None and log.undone:
            self._read_first(log.undone)
        for fd in self._sources:
            self._loop.watch(fd, IN, self._reader(fd))
        self._pause_or_go()
        if self._input or self._stdin_ending:
            self._push()

    @property
    def attached(self) -> bool:
        return bool(self._attachments)

    def descriptors(self) -> Streams:
        """What is open now, still ours."""
        return Streams(dict(self._sources), self._stdin, self._terminal)

    def attach(self, attachment: Attachment) -> None:
        self._attachments.append(attachment)

    def detach(self, attachment: Attachment) -> None:
        if attachment in self._attachments:
            self._attachments.remove(attachment)
            self._pause_or_go()

    def caught_up(self) -> None:
        """An attachment's buffer shrank."""
        if self._paused:
            self._pause_or_go()

    def resize(self, rows: int, columns: int) -> None:
        if self._terminal >= 0:
            console.resize(self._terminal, rows, columns)

    def write(self, data: bytes) -> bool:
        """Queue input; False asks the sender to pause until `input_drained`."""
        if self._stdin_ending:
            return True
        self._input += data
        if self._stdin >= 0:
            self._push()
        return len(self._input) < HIGH

    def end_input(self) -> None:
        """Close stdin after what is queued; a terminal gets its end-of-file character instead."""
        if self._terminal >= 0:
            self.write(b"\x04")
            return
        self._stdin_ending = True
        if self._stdin >= 0:
            self._push()

    def drain(self) -> None:
        """The process is dead: take what it left in the kernel, and log the line that will never end."""
        for fd, stream in tuple(self._sources.items()):
            self._loop.forget(fd)
            left = _held(fd)
            while left > 0 and (moved := self._move(fd, stream)):
                left -= moved
            self._drop(fd)
        if self._log is not None:
            self._log.flush(time.time_ns())

    def finish(self, exit_: ExitRecord) -> None:
        """After the process's death: end every attachment, and the log."""
        self.drain()
        for attachment in tuple(self._attachments):  # each leaves the list as it hangs up
            attachment.ended(exit_)
        self._attachments.clear()
        self.close()

    def close(self) -> None:
        """Close everything; the log gets its last unfinished line."""
        self._settle()
        for fd in tuple(self._sources):
            self._loop.forget(fd)
            self._drop(fd)
        self._close_stdin()
        if self._terminal >= 0:
            os.close(self._terminal)
            self._terminal = -1
        if self._log is not None:
            self._log.flush(time.time_ns())
            self._log.close()
            self._log = None

    def _reader(self, fd: int) -> Callable[[int], None]:
        def readable(_: int) -> None:
            moved = self._move(fd, self._sources[fd], may_flow=True)
            if moved:
                self._pause_or_go()
            elif moved is not None:
                self._loop.forget(fd)
                self._drop(fd)

        return readable

    def _read_first(self, stream: int) -> None:
        for fd in [fd for fd, each in self._sources.items() if each == stream]:
            self._move(fd, stream)

    def _move(self, fd: int, stream: int, *, may_flow: bool = False) -> int | None:
        """What there is goes to the log, as far as one round goes, and to the attachments. Returns how much that was:
        0 at the end, None when there is nothing now, or when it has only begun to flow."""
        if fd == self._flow.fd:
            return self._emit(stream, *(self._flow.go_on() if may_flow else self._flow.end()))
        self._settle()
        tapped = self._log is not None and self._terminal < 0
        try:
            # Two rounds of a keeper before us may be undone, of which the log knows the lines together.
            undone = self._log is not None and self._log.undone
            data = self._tap.peek(fd, chunks=2 if undone else 1) if tapped else os.read(fd, CHUNK)
        except BlockingIOError:
            return None
        except OSError:  # EIO: nobody has the terminal open any more
            return 0
        self._fit(fd, len(data))
        moved = len(data)
        if data and self._log is not None:
            if tapped and may_flow and self._flow.begin(self._log, fd, stream, data):
                return None
            if tapped:
                moved = self._log.log(stream, data, time.time_ns(), partial(self._tap.take, fd))
            else:
                self._log.write(stream, data, time.time_ns())
        return self._emit(stream, data, moved)

    def _settle(self) -> None:
        """Another round of this log can begin, or none."""
        while stream := self._sources.get(self._flow.fd):
            self._emit(stream, *self._flow.end())

    def _fit(self, fd: int, held: int) -> None:
        """Have a pipe that is found full hold more, until it is found quiet."""
        full = held >= _PIPE
        if full != (fd in self._wide) and (full or held <= _QUIET):
            self._wide ^= {fd}
            with contextlib.suppress(OSError):  # no pipe, or the host has no memory to spare for it
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _WIDE if full else _PIPE)

    def _drop(self, fd: int) -> None:
        del self._sources[fd]
        self._wide.discard(fd)
        os.close(fd)

    def _emit(self, stream: int, data: bytes, moved: int) -> int:
        """So much of it to the attachments. Returns that."""
        if moved and self._attachments:
            for attachment in tuple(self._attachments):  # one that has hung up leaves the list
                attachment.output(stream, data[:moved])
        return moved

    def _pause_or_go(self) -> None:
        most = max((attachment.pending for attachment in self._attachments), default=0)
        should_pause = most > (LOW if self._paused else HIGH)
        if should_pause != self._paused:
            self._paused = should_pause
            for fd in self._sources:
                if should_pause:
                    self._loop.forget(fd)  # a hang-up would be reported even with no events asked for
                else:
                    self._loop.watch(fd, IN, self._reader(fd))

    def _push(self, events: int = 0) -> None:
        """Write queued input as far as it goes."""
        if self._stdin < 0:
            return
        try:
            while self._input:
                written = os.write(self._stdin, self._input[:CHUNK])
                del self._input[:written]
        except BlockingIOError:
            pass
        except OSError:  # EPIPE: the process closed its stdin
            self._input.clear()
            self._close_stdin()
            self._drained()
            return
        if events & (HUP | ERR) and not self._input:
            self._set_writing(wanted=False)
            return
        self._set_writing(wanted=bool(self._input))
        if not self._input and self._stdin_ending:
            self._close_stdin()
        if len(self._input) < LOW:
            self._drained()

    def _drained(self) -> None:
        for attachment in tuple(self._attachments):
            attachment.input_drained()

    def _set_writing(self, *, wanted: bool) -> None:
        if wanted != self._writing:
            self._writing = wanted
            if wanted:
                self._loop.watch(self._stdin, OUT, self._push)
            else:
                self._loop.forget(self._stdin)

    def _close_stdin(self) -> None:
        if self._stdin >= 0:
            self._set_writing(wanted=False)
            os.close(self._stdin)
            self._stdin = -1
            self._input.clear()
            self.stdin_closed()
        self._stdin_ending = True


def _held(fd: int) -> int:
    """The most that can have been in it at one moment: what comes after that is somebody else's who has it open."""
    try:
        return fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)
    except OSError:  # a terminal
        return CHUNK
