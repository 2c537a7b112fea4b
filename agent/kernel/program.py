"""The syscall program of a process's start, as a pure value: described calls, their arguments and what may fail.

A program is a sequence of blocks, a block a sequence of ops; blocks that many starts share are built once and their
compiled form (`table`) is kept. An op's result can be an argument of a later op through its label (`Ref`), so "open
that, mount on it" needs no code between the calls. Nothing here touches the kernel: tests assert on programs without
root, and `trampoline` and `portable` run the same one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol, Union


class Fd(NamedTuple):
    """A descriptor of the process that runs the program (an executor in another process is given a copy)."""

    number: int


class Ref(NamedTuple):
    """The result of the op with this label, which must come earlier in the program."""

    label: str


class Vector(NamedTuple):
    """A NULL-terminated array of strings, as execve(2) takes."""

    items: tuple[bytes, ...]


class Struct(NamedTuple):
    """A pointer to a C struct whose fields are 8 bytes each (smaller neighbours are packed into one int)."""

    fields: tuple[Arg, ...]


# int: a number. bytes: a pointer to these bytes followed by NUL.
Arg = Union[int, bytes, Fd, Ref, Vector, "Struct"]


class Op(NamedTuple):
    """One system call. After success the next `then` ops are skipped; after an errno of `ignore`, `otherwise` ops.

    Any other error ends the program. `step` says what the call is for, as a phrase after "cannot".
    """

    step: str
    call: str
    args: tuple[Arg, ...]
    label: str = ""
    ignore: tuple[int, ...] = ()
    then: int = 0
    otherwise: int = 0

    def __str__(self) -> str:
        return f"{self.call}({', '.join(_shown(arg) for arg in self.args)})"


def _shown(arg: Arg) -> str:
    if isinstance(arg, Fd):
        return f"fd:{arg.number}"
    if isinstance(arg, Ref):
        return f"${arg.label}"
    if isinstance(arg, Vector):
        return f"[{len(arg.items)} strings]"
    if isinstance(arg, Struct):
        return "{" + ", ".join(_shown(field) for field in arg.fields) + "}"
    if isinstance(arg, bytes):
        return repr(arg)[1:] if len(arg) <= 80 and arg.isascii() else f"<{len(arg)} bytes>"
    return hex(arg) if arg > 4096 else str(arg)


class Block:
    """A run of ops whose compiled form is cached on it. Skips must stay inside the block."""

    __slots__ = ("__weakref__", "compiled", "ops")

    def __init__(self, ops: Iterable[Op]) -> None:
        self.ops = tuple(ops)
        self.compiled: Any = None  # owned by `table`

    def fds(self) -> set[int]:
        """Every descriptor the block uses."""
        found: set[int] = set()
        for op in self.ops:
            for arg in op.args:
                _collect(arg, found)
        return found

    def with_fds(self, number_of: Callable[[int], int]) -> Block:
        """The same block for a process where the descriptors have other numbers."""
        return Block(op._replace(args=tuple(_renumber(arg, number_of) for arg in op.args)) for op in self.ops)


class Program:
    """Blocks in order. The last ops are execve(2)s; the first of them that succeeds ends the program well."""

    __slots__ = ("__weakref__", "blocks", "linked")

    def __init__(self, blocks: Iterable[Block]) -> None:
        self.blocks = tuple(blocks)
        self.linked: Any = None  # owned by `table`

    @property
    def ops(self) -> Iterator[Op]:
        return (op for block in self.blocks for op in block.ops)

    def describe(self) -> str:
        """One line per op, for tests and for people who debug a start."""
        return "\n".join(f"{op}  # {op.step}" for op in self.ops)

    def fds(self) -> set[int]:
        """Every descriptor the program uses."""
        return set().union(*(block.fds() for block in self.blocks))


def _collect(arg: Arg, found: set[int]) -> None:
    if isinstance(arg, Fd):
        found.add(arg.number)
    elif isinstance(arg, Struct):
        for field in arg.fields:
            _collect(field, found)


def _renumber(arg: Arg, number_of: Callable[[int], int]) -> Arg:
    if isinstance(arg, Fd):
        return Fd(number_of(arg.number))
    if isinstance(arg, Struct):
        return Struct(tuple(_renumber(field, number_of) for field in arg.fields))
    return arg


class Failed(Exception):
    """The program stopped at `op` with `errno`; errno 0 means that the process was killed in it."""

    def __init__(self, op: Op, errno: int) -> None:
        super().__init__(op, errno)
        self.op = op
        self.errno = errno

    def __str__(self) -> str:
        why = os.strerror(self.errno) if self.errno else "the process was killed"
        return f"cannot {self.op.step}: {why} ({self.op.call}, errno {self.errno})"


class Process(NamedTuple):
    """What an executor started: `pid` in the executor's pid namespace, and an open pidfd that the caller owns."""

    pid: int
    pidfd: int


class Executor(Protocol):
    """`trampoline.Trampoline` or `portable.Portable`."""

    def start(self, program: Program, flags: int, *, cgroup_fd: int = -1, pid_namespace: int = -1) -> Process: ...
