"""A process of a container: cloned from this one, which has a single thread, and led through its program.

The child tells over a socket where it stops (`blocks.Stops`), and writes what failed to a file that outlives us. Where
a namespace has to be entered before the clone (a pid or user namespace by path, a time namespace) a helper enters it
and clones for us, so that we stay where we are: hooks run in the runtime's own namespaces.
"""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from agent.kernel import portable, table
from agent.kernel import syscalls as sys
from agent.kernel.program import Failed, Program
from agent.runtime.failure import Failure
from agent.runtime.outcome import translated
from agent.runtime.spec.process import Process

_WORD = 64


class Child(NamedTuple):
    pid: int
    pidfd: int


class Surroundings(NamedTuple):
    """What there is to be before the clone: namespaces to enter (kind to descriptor), a time namespace to make with
    its offsets, and the cgroup's directory or -1."""

    joins: Mapping[int, int] = {}
    new_time: bool = False
    offsets: tuple[tuple[str, int, int], ...] = ()
    cgroup_fd: int = -1

    @property
    def helper(self) -> bool:
        return self.new_time or bool(self.joins)


def begin(program: Program, process: Process, flags: int, around: Surroundings, failures: int) -> Child:
    """Clone; what stops the child is written to the descriptor `failures`. Raises Failure when there is no child."""

    def report(index: int, result: int) -> None:
        told = translated(Failed(table.op_at(program, index), -result), process)
        os.write(failures, json.dumps([told.kind, told.message, told.hint]).encode())

    try:
        if not around.helper:
            return Child(*portable.fork(program, flags, report, cgroup_fd=around.cgroup_fd))
        return _through_helper(lambda: _from_inside(program, flags, around, report))
    except OSError as error:
        raise Failure("StartFailed", f"unable to start container process: {error.strerror or error}") from error


def _from_inside(program: Program, flags: int, around: Surroundings, report: Callable[[int, int], None]) -> int:
    """In the helper: enter, and clone a sibling."""
    _enter(around.joins)
    if around.new_time:
        sys.call("unshare", sys.CLONE_NEWTIME)
        text = "".join(f"{clock} {seconds} {nanoseconds}\n" for clock, seconds, nanoseconds in around.offsets)
        if text:
            fd = os.open("/proc/self/timens_offsets", os.O_WRONLY)
            os.write(fd, text.encode())
            os.close(fd)
    return portable.fork(program, flags | sys.CLONE_PARENT, report, cgroup_fd=around.cgroup_fd)[0]


def _enter(joins: Mapping[int, int]) -> None:
    """Namespaces belong to a user namespace: those of ours are entered before the container's, its own after."""
    later: dict[int, int] = {}
    for kind, fd in joins.items():
        try:
            if kind == sys.CLONE_NEWUSER:
                later = {kind: fd, **later}
            else:
                sys.setns(fd, kind)
        except OSError as error:
            if error.errno != errno.EPERM or sys.CLONE_NEWUSER not in joins:
                raise
            later[kind] = fd
    for kind, fd in later.items():
        sys.setns(fd, kind)


def _through_helper(clone: Callable[[], int]) -> Child:
    reader, writer = os.pipe()
    helper = os.fork()
    if helper == 0:
        try:
            os.write(writer, f"{clone()} ".encode())
        except OSError as error:
            os.write(writer, f"0 {error.errno or errno.EINVAL}".encode())
        finally:
            os._exit(0)
    os.close(writer)
    told = os.read(reader, 64).decode().split()
    os.close(reader)
    os.waitpid(helper, 0)
    if not told:
        raise OSError(errno.ECHILD, "the helper that clones died")
    if told[0] == "0":
        raise OSError(int(told[1]), f"enter a namespace: {os.strerror(int(told[1]))}")
    pid = int(told[0])
    return Child(pid, os.pidfd_open(pid))


def conversation(channel: socket.socket) -> Iterator[bytes]:
    """The words at which the child stops; each is answered when the next one is asked for. Ends with the child, or
    with its exec."""
    while word := channel.recv(_WORD):
        yield word
        channel.send(b".")
