"""A program's form in memory: an array of 96-byte entries that a child walks without an interpreter.

    word 0      the call's number
    word 1..6   its arguments
    word 7      bit i set: argument i is the distance in bytes from this entry to the word that holds the argument
    word 8      bit e set: errno e is ignored
    word 9, 10  how far to step after success, after an ignored error (bytes)
    word 11     the result; UNRUN until the call has returned

Distances instead of addresses make a block's entries position independent: a block is compiled once, with its strings
in memory that lives as long as the block, and a program is made by joining blocks. The trampoline and the portable
executor both read this form.
"""

from __future__ import annotations

import ctypes
import struct
import threading
from typing import NamedTuple

from agent.kernel.program import Block, Fd, Op, Program, Ref, Struct, Vector
from agent.kernel.syscalls import NUMBERS

WORDS = 12
SIZE = 8 * WORDS
RESULT = 88
UNRUN = 0x7FFF_FFFF_FFFF_FFFF
_POINTER = struct.Struct("<Q")
_MASK = (1 << 64) - 1
_PADDING = tuple(bytes(8 - length) for length in range(8))  # of a string: a NUL at least, and up to a whole word
_NO_ARGUMENTS = (0,) * 6
_compiling = threading.Lock()


class Compiled(NamedTuple):
    """`code` is position independent but for `wanted`: (entry, argument, label) of results of earlier blocks."""

    code: bytes
    exports: dict[str, int]
    wanted: tuple[tuple[int, int, str], ...]
    strings: ctypes.Array[ctypes.c_char]


class _Arena:
    """Strings and structs of one block: laid out first, then given an address, then the pointers are filled in."""

    def __init__(self) -> None:
        self.bytes = bytearray()
        self.pointers: list[int] = []  # offsets of words that hold an offset and want an address
        self._shared: dict[int, int] = {}  # the several tries of an exec share one environment

    def place(self, arg: bytes | Vector | Struct) -> int:
        at = self._shared.get(id(arg))
        if at is None:
            at = self._shared[id(arg)] = self._string(arg) if isinstance(arg, bytes) else self._structure(arg)
        return at

    def _string(self, text: bytes) -> int:
        at = len(self.bytes)
        self.bytes += text + _PADDING[len(text) & 7]
        return at

    def _structure(self, arg: Vector | Struct) -> int:
        words: list[int] = []
        pointers: list[int] = []
        for index, field in enumerate(arg.fields if isinstance(arg, Struct) else arg.items):
            if isinstance(field, (bytes, Vector, Struct)):
                pointers.append(8 * index)
                words.append(self.place(field))
            elif isinstance(field, Ref):
                raise TypeError("a result can be an argument, not a field of a struct")
            else:
                words.append((field.number if isinstance(field, Fd) else field) & _MASK)
        if isinstance(arg, Vector):
            words.append(0)
        at = len(self.bytes)
        self.pointers += [at + each for each in pointers]
        self.bytes += struct.pack(f"<{len(words)}Q", *words)
        return at

    def settle(self) -> ctypes.Array[ctypes.c_char]:
        memory = ctypes.create_string_buffer(len(self.bytes) + 1)
        base = ctypes.addressof(memory)
        for offset in self.pointers:
            _POINTER.pack_into(self.bytes, offset, _POINTER.unpack_from(self.bytes, offset)[0] + base)
        ctypes.memmove(base, bytes(self.bytes), len(self.bytes))
        return memory


def compile_block(block: Block) -> Compiled:
    """The compiled form of `block`, made at most once: with a second one in its place, the strings of the first would
    be freed under the child of another thread that walks it."""
    if block.compiled is None:
        with _compiling:
            if block.compiled is None:
                block.compiled = _compile(block.ops)
    compiled: Compiled = block.compiled
    return compiled


def _compile(ops: tuple[Op, ...]) -> Compiled:
    arena = _Arena()
    exports: dict[str, int] = {}
    wanted: list[tuple[int, int, str]] = []
    words: list[int] = []
    pointers: list[int] = []  # words that hold an offset in the arena and want an address
    for index, op in enumerate(ops):
        start, refs = len(words), 0
        words.append(NUMBERS[op.call])
        for position, arg in enumerate(op.args):
            if isinstance(arg, int):
                words.append(arg & _MASK)
            elif isinstance(arg, Fd):
                words.append(arg.number & _MASK)
            elif isinstance(arg, Ref):
                refs |= 1 << position
                if arg.label in exports:
                    words.append(((exports[arg.label] - index) * SIZE + RESULT) & _MASK)
                else:
                    wanted.append((index, position, arg.label))
                    words.append(0)
            else:
                pointers.append(len(words))
                words.append(arena.place(arg))
        words += _NO_ARGUMENTS[len(op.args) :]
        ignored = 0
        for errno in op.ignore:
            ignored |= 1 << errno
        words += (refs, ignored, SIZE * (1 + op.then), SIZE * (1 + op.otherwise), UNRUN)
        if len(words) != start + WORDS:
            raise ValueError(f"{op.call}: a system call takes six arguments at most")
        if op.label:
            exports[op.label] = index
    strings = arena.settle()
    base = ctypes.addressof(strings)
    for each in pointers:
        words[each] += base
    return Compiled(struct.pack(f"<{len(words)}Q", *words), exports, tuple(wanted), strings)


_END = Block((Op("end", "exit_group", (127,)),))


def link(program: Program) -> bytes:
    """The whole program's entries, closed by an exit; joined once, for a program that is run again. The blocks must
    outlive their use: strings stay in them."""
    if program.linked is None:
        program.linked = bytes(_link(program))
    linked: bytes = program.linked
    return linked


def _link(program: Program) -> bytearray:
    code = bytearray()
    earlier: list[tuple[int, dict[str, int]]] = []  # where a block starts, and its labels
    for block in (*program.blocks, _END):
        compiled = compile_block(block)
        start = len(code) // SIZE
        code += compiled.code
        for index, position, label in compiled.wanted:
            at = next(where + labels[label] for where, labels in reversed(earlier) if label in labels)
            distance = (at - start - index) * SIZE + RESULT
            struct.pack_into("<q", code, (start + index) * SIZE + 8 * (1 + position), distance)
        if compiled.exports:
            earlier.append((start, compiled.exports))
    return code


def op_at(program: Program, index: int) -> Op:
    """The op of the entry number `index`."""
    for block in program.blocks:
        if index < len(block.ops):
            return block.ops[index]
        index -= len(block.ops)
    return _END.ops[0]
