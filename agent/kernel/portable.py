"""The executor in plain Python, for machines that `trampoline` has no code for or that forbid generated code.

A raw clone of a process with threads deadlocks now and then (malloc's locks, the GIL), so a helper with one thread does
it: `Portable` sends the program and the descriptors, the helper clones with CLONE_PARENT (the child is ours, not its),
the child walks the same table (`table`) with ctypes, and tells through a pipe where it stopped; exec closes the pipe.
Costs about twice the trampoline's time.
"""

from __future__ import annotations

import array
import ctypes
import errno
import gc
import itertools
import os
import pickle
import signal
import socket
import struct
import sys
import threading
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

from agent.kernel import syscalls, table, unwritable
from agent.kernel.program import Block, Failed, Op, Process, Program

_HEADER = struct.Struct("<IQ")  # length of the program, clone flags
_ANSWER = struct.Struct("<iiq")  # pid or -errno of clone, index of the op that failed or -1, its result
_POSITIONS = tuple(tuple(bit for bit in range(6) if refs >> bit & 1) for refs in range(64))
_MAX_FDS = 250  # SCM_MAX_FD is 253
_ROOMS = str(Path(__file__).resolve().parents[2])


# A block on its way: its number where it is kept, and its ops, which are None where they are known by that number.
Parcel = tuple[int, tuple[Op, ...] | None]


class Portable:
    """Starts processes through the helper, one at a time; threads take turns."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._helper = 0
        # Blocks that came before, and the numbers of those that the helper has kept since: they come again and again.
        self._seen: weakref.WeakSet[Block] = weakref.WeakSet()
        self._kept: weakref.WeakKeyDictionary[Block, int] = weakref.WeakKeyDictionary()
        self._numbers = itertools.count(1)

    def start(self, program: Program, flags: int, *, cgroup_fd: int = -1, pid_namespace: int = -1) -> Process:
        """As `Trampoline.start`."""
        with self._lock:
            channel = self._channel()
            fresh = set().union(*(block.fds() for block in program.blocks if block not in self._kept))
            fds = sorted(fresh | {fd for fd in (cgroup_fd, pid_namespace) if fd >= 0})
            places = {number: place for place, number in enumerate(fds)}
            blocks = [self._parcel(block, places) for block in program.blocks]
            body = pickle.dumps((blocks, places.get(cgroup_fd, -1), places.get(pid_namespace, -1)))
            try:
                channel.sendmsg(
                    [_HEADER.pack(len(body), flags)],
                    [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else [],
                )
                channel.sendall(body)
                answer, fds_back, _, _ = socket.recv_fds(channel, _ANSWER.size, 1)
            except OSError:
                self.close()
                raise
            if len(answer) != _ANSWER.size:
                self.close()
                raise OSError(0, "clone3: the helper process died")
        pid, stopped, result = _ANSWER.unpack(answer)
        if pid < 0:
            raise OSError(-pid, f"clone3: {os.strerror(-pid)}")
        if stopped < 0:
            return Process(pid, fds_back[0])
        os.waitid(os.P_PIDFD, fds_back[0], os.WEXITED)
        os.close(fds_back[0])
        raise Failed(table.op_at(program, stopped), -result)

    def _parcel(self, block: Block, places: Mapping[int, int]) -> Parcel:
        """A block as it is sent. One that comes for the second time is kept there, and sent no more."""
        if number := self._kept.get(block):
            return number, None
        if block in self._seen:
            self._kept[block] = number = next(self._numbers)
            return number, block.ops
        if block.fds():
            return 0, block.with_fds(places.__getitem__).ops
        self._seen.add(block)
        return 0, block.ops

    def close(self) -> None:
        """End the helper."""
        self._seen.clear()
        self._kept.clear()
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            os.waitpid(self._helper, 0)

    def _channel(self) -> socket.socket:
        if self._socket is None:
            ours, theirs = socket.socketpair()
            code = f"import sys; sys.path.insert(0, {_ROOMS!r}); from agent.kernel.portable import serve; serve()"
            program = unwritable.program(sys.executable)
            self._helper = os.posix_spawn(
                f"/proc/self/fd/{program}",
                [sys.executable, "-I", "-S", "-E", "-c", code],
                {},
                file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), 3)] if theirs.fileno() != 3 else [],
            )
            os.close(program)
            theirs.close()
            self._socket = ours
        return self._socket


def serve() -> None:
    """The helper: answer requests on descriptor 3 until the other side closes it."""
    os.set_inheritable(3, False)
    channel = socket.socket(fileno=3)
    gc.collect()
    gc.freeze()
    kept: dict[int, Block] = {}
    while True:
        header, fds, _, _ = socket.recv_fds(channel, _HEADER.size, _MAX_FDS)
        if len(header) != _HEADER.size:
            return
        length, flags = _HEADER.unpack(header)
        body = b""
        while len(body) < length:
            body += channel.recv(length - len(body))
        blocks, cgroup, namespace = pickle.loads(body)
        program = Program(tuple(_unpacked(parcel, kept, fds) for parcel in blocks))
        answer, pidfd = _clone(
            program, flags, fds[cgroup] if cgroup >= 0 else -1, fds[namespace] if namespace >= 0 else -1
        )
        socket.send_fds(channel, [answer], [pidfd] if pidfd >= 0 else [])
        for fd in (*fds, pidfd):
            if fd >= 0:
                os.close(fd)


def _unpacked(parcel: Parcel, kept: dict[int, Block], fds: list[int]) -> Block:
    number, ops = parcel
    if ops is None:
        return kept[number]
    if not number:
        return Block(ops).with_fds(fds.__getitem__)
    return kept.setdefault(number, Block(ops))


def _clone(program: Program, flags: int, cgroup_fd: int, namespace: int) -> tuple[bytes, int]:
    home = os.open("/proc/self/ns/pid_for_children", os.O_RDONLY | os.O_CLOEXEC) if namespace >= 0 else -1
    if namespace >= 0:
        syscalls.setns(namespace, syscalls.CLONE_NEWPID)
    reader, writer = os.pipe()
    error, pid, pidfd = 0, -1, -1
    try:
        pid, pidfd = fork(
            program,
            flags | syscalls.CLONE_PARENT,
            lambda stopped, result: os.write(writer, struct.pack("<qq", stopped, result)),
            cgroup_fd=cgroup_fd,
        )
    except OSError as failed:
        error = failed.errno or errno.EINVAL
    os.close(writer)
    if home >= 0:
        syscalls.setns(home, syscalls.CLONE_NEWPID)
        os.close(home)
    told = os.read(reader, 16)
    os.close(reader)
    stopped, result = struct.unpack("<qq", told) if told else (-1, 0)
    return _ANSWER.pack(pid if pid > 0 else -error, stopped, result), pidfd


def fork(program: Program, flags: int, report: Callable[[int, int], object], *, cgroup_fd: int = -1) -> tuple[int, int]:
    """Clone this process, which must have one thread, and walk the program in the child; (pid, pidfd), not awaited.

    When the program stops before an exec, the child calls `report(index of the op, -errno)` and exits with 127.
    """
    code = table.link(program)
    entries = [struct.unpack_from("<Q6qQQqqq", code, at) for at in range(0, len(code), table.SIZE)]
    pidfd = ctypes.c_int(-1)
    flags |= syscalls.CLONE_PIDFD | syscalls.CLONE_CLEAR_SIGHAND
    if cgroup_fd >= 0:
        flags |= syscalls.CLONE_INTO_CGROUP
    signal_number = 0 if flags & syscalls.CLONE_PARENT else signal.SIGCHLD
    arguments = (ctypes.c_uint64 * 11)(
        flags, ctypes.addressof(pidfd), 0, 0, signal_number, 0, 0, 0, 0, 0, max(cgroup_fd, 0)
    )
    python = ctypes.PyDLL(None, use_errno=True)  # PyDLL: the GIL stays held, so the child's copy of it is held too
    syscall = python.syscall
    syscall.restype, syscall.argtypes = ctypes.c_long, (ctypes.c_long,) * 7
    pid = syscall(syscalls.NUMBERS["clone3"], ctypes.addressof(arguments), 88, 0, 0, 0, 0)
    if pid == 0:
        _walk(entries, syscall, report)
    if pid < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"clone3: {os.strerror(number)}")
    return int(pid), pidfd.value


def _walk(
    entries: list[tuple[int, ...]], syscall: Callable[..., int], report: Callable[[int, int], object]
) -> NoReturn:
    """In the child: what the trampoline's machine code does."""
    gc.disable()  # it would touch, and so copy, every page of the parent's
    results: dict[int, int] = {}
    index, last = 0, (0, 0)
    while index < len(entries) - 1:
        number, *words, refs, ignored, on_success, on_ignored, _ = entries[index]
        for position in _POSITIONS[refs]:
            words[position] = results[index + (words[position] - table.RESULT) // table.SIZE]
        result = syscall(number, *words)
        if result < 0:
            error = ctypes.get_errno()
            if not ignored >> error & 1:
                last = (index, -error)
                break
            if number == syscalls.NUMBERS["execve"] and (error != errno.ENOENT or not last[1]):
                last = (index, -error)  # the try of an exec that tells most
            index += on_ignored // table.SIZE
        else:
            results[index] = result
            index += on_success // table.SIZE
    try:
        report(*last)
    finally:
        os._exit(127)
