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

from agent.kernel.program import Arg, Block, Fd, Op, Program, Ref, Struct, Vector
from agent.kernel.syscalls import NUMBERS

WORDS = 12
SIZE = 8 * WORDS
RESULT = 88
UNRUN = 0x7FFF_FFFF_FFFF_FFFF
_ENTRY = struct.Struct("<Q6qQQqqq")
_MASK = (1 << 64) - 1
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
        if id(arg) not in self._shared:
            self._shared[id(arg)] = self._place(arg)
        return self._shared[id(arg)]

    def _place(self, arg: bytes | Vector | Struct) -> int:
        if isinstance(arg, bytes):
            at = len(self.bytes)
            self.bytes += arg + b"\0" * (8 - len(arg) % 8)
            return at
        fields = (*arg.items, None) if isinstance(arg, Vector) else arg.fields
        words: list[tuple[int, bool]] = []
        for field in fields:
            if isinstance(field, (bytes, Vector, Struct)):
                words.append((self.place(field), True))
            elif isinstance(field, Ref):
                raise TypeError("a result can be an argument, not a field of a struct")
            else:
                words.append((0 if field is None else field.number if isinstance(field, Fd) else field, False))
        at = len(self.bytes)
        for index, (value, is_pointer) in enumerate(words):
            if is_pointer:
                self.pointers.append(at + 8 * index)
            self.bytes += (value & _MASK).to_bytes(8, "little")
        return at

    def settle(self) -> ctypes.Array[ctypes.c_char]:
        memory = ctypes.create_string_buffer(bytes(self.bytes), max(len(self.bytes), 1))
        base = ctypes.addressof(memory)
        for offset in self.pointers:
            word = ctypes.c_uint64.from_buffer(memory, offset)
            word.value += base
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
    rows: list[tuple[Op, list[int], int, int]] = []
    for index, op in enumerate(ops):
        words, refs, pointers = [0] * 6, 0, 0
        for position, arg in enumerate(op.args):
            words[position] = _word(arg, arena, exports, index)
            if isinstance(arg, Ref):
                refs |= 1 << position
                if arg.label not in exports:
                    wanted.append((index, position, arg.label))
            elif isinstance(arg, (bytes, Vector, Struct)):
                pointers |= 1 << position
        if op.label:
            exports[op.label] = index
        rows.append((op, words, refs, pointers))
    strings = arena.settle()
    base = ctypes.addressof(strings)
    code = bytearray()
    for op, words, refs, pointers in rows:
        placed = [word + base if pointers >> position & 1 else word for position, word in enumerate(words)]
        ignored = sum(1 << errno for errno in op.ignore)
        code += _ENTRY.pack(
            NUMBERS[op.call], *placed, refs, ignored, SIZE * (1 + op.then), SIZE * (1 + op.otherwise), UNRUN
        )
    return Compiled(bytes(code), exports, tuple(wanted), strings)


def _word(arg: Arg, arena: _Arena, exports: dict[str, int], index: int) -> int:
    if isinstance(arg, (bytes, Vector, Struct)):
        return arena.place(arg)
    if isinstance(arg, Ref):
        return (exports[arg.label] - index) * SIZE + RESULT if arg.label in exports else 0
    value = arg.number if isinstance(arg, Fd) else arg
    return value - (1 << 64) if value > 0x7FFF_FFFF_FFFF_FFFF else value


_END = Block((Op("end", "exit_group", (127,)),))


def link(program: Program) -> bytearray:
    """The whole program's entries, closed by an exit. The blocks must outlive their use: strings stay in them."""
    code = bytearray()
    labels: dict[str, int] = {}
    for block in (*program.blocks, _END):
        compiled = compile_block(block)
        start = len(code) // SIZE
        code += compiled.code
        for index, position, label in compiled.wanted:
            distance = (labels[label] - start - index) * SIZE + RESULT
            struct.pack_into("<q", code, (start + index) * SIZE + 8 * (1 + position), distance)
        for label, index in compiled.exports.items():
            labels[label] = start + index
    return code


def op_at(program: Program, index: int) -> Op:
    """The op of the entry number `index`."""
    for block in program.blocks:
        if index < len(block.ops):
            return block.ops[index]
        index -= len(block.ops)
    return _END.ops[0]
