"""Lines of a container as they stand in its log, in JSON: the whole ones of a text, by the block.

Machine code (x86-64) makes them in one pass of sixteen bytes a step; elsewhere the interpreter's own replacing does, in
a pass for each thing that is replaced. What comes out is the same.

    ; rdi = the text, rsi = its end, rdx = room, rcx = where the last step may begin in it, r8 = the form
           lea r9,[rsi-16] / movdqu xmm1,[r8+288] / movdqu xmm2,[r8+304] / movdqu xmm3,[r8+320] / pxor xmm6,xmm6
           mov r10,rdi / mov r11,rdx                         ; behind the last line
    next:  cmp rdx,rcx / ja done / cmp rdi,r9 / ja tail
           movdqu xmm0,[rdi] / movdqu [rdx],xmm0 / por xmm6,xmm0
           movdqa xmm4,xmm1 / pminub xmm4,xmm0 / movdqa xmm5,xmm2 / pcmpeqb xmm4,xmm0 / pcmpeqb xmm5,xmm0
           pcmpeqb xmm0,xmm3 / por xmm4,xmm5 / por xmm4,xmm0 / pmovmskb eax,xmm4    ; controls, quotes, backslashes
           test eax,eax / jnz odd / add rdi,16 / add rdx,16 / jmp next
    odd:   bsf eax,eax / add rdi,rax / add rdx,rax / movzx eax,byte [rdi]
    one:   inc rdi / cmp al,10 / je line / cmp al,32 / jae quote
           mov rax,[r8+rax*8] / mov [rdx],rax / shr rax,56 / add rdx,rax / jmp next ; seven bytes, and how many count
    quote: mov byte [rdx],92 / mov [rdx+1],al / add rdx,2 / jmp next
    line:  xor eax,eax
    copy:  movdqu xmm0,[r8+rax+336] / movdqu [rdx+rax],xmm0 / add rax,16 / cmp rax,[r8+256] / jb copy
           add rdx,[r8+256] / mov r10,rdi / mov r11,rdx / jmp next
    tail:  cmp rdi,rsi / jae done / movzx eax,byte [rdi] / cmp al,32 / jb one / cmp al,34 / je one / cmp al,92 / je one
           movd xmm0,eax / por xmm6,xmm0 / mov [rdx],al / inc rdi / inc rdx / jmp next
    done:  mov [r8+264],r10 / pmovmskb eax,xmm6 / mov [r8+272],rax / mov rax,r11 / ret
"""

from __future__ import annotations

import ctypes
import struct
from codecs import utf_8_decode
from functools import lru_cache
from json.encoder import encode_basestring as quoted
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from typing import NamedTuple

from agent.kernel.machinecode import MachineCode, supported
from agent.runtime.escapes import escaped

_CODE = bytes.fromhex(
    "4c8d4ef0f3410f6f8820010000f3410f6f9030010000f3410f6f984001000066"
    "0feff64989fa4989d34839ca0f87d60000004c39cf0f87a4000000f30f6f07f3"
    "0f7f02660febf0660f6fe1660fdae0660f6fea660f74e0660f74e8660f74c366"
    "0febe5660febe0660fd7c485c0750a4883c7104883c210ebb00fbcc04801c748"
    "01c20fb60748ffc73c0a74233c207310498b04c048890248c1e8384801c2eb89"
    "c6025c8842014883c202e97affffff31c0f3410f6f840050010000f30f7f0402"
    "4883c010493b800001000072e4490390000100004989fa4989d3e94affffff48"
    "39f773240fb6073c20729a3c2274963c5c7492660f6ec0660febf0880248ffc7"
    "48ffc2e921ffffff4d899008010000660fd7c6498980100100004c89d8c3"
)
ROOM = 1 << 20 | 1 << 19  # four times what is looked at together (`tap`): more lines than that wait
# The form: what stands for each control character, then the length of what stands for an end of line; where the text's
# last line ends, and the bits of its bytes, by which the code answers; what it compares with; what stands for an end of
# line, up to eight steps of it.
_BREAK_SIZE, _ANSWER, _COMPARED, _BREAK = 256, 264, 288, 336
_LONGEST = 128
_STEP = 16
_MARGIN = _LONGEST + 2 * _STEP  # what one turn of the loop may write


class Lines(NamedTuple):
    """`size` bytes of `block` stand for the text up to `end`."""

    block: bytes | mmap
    size: int
    end: int


def room() -> mmap:
    """Memory for a block, to be used again and again; only what is written to it is taken from the host."""
    return mmap(-1, ROOM, MAP_PRIVATE | MAP_ANONYMOUS)


def lines(text: bytes, before: bytes, after: bytes, memory: mmap) -> Lines | None:
    """The lines of `text` that are whole, each between `before` and `after`; as many as `memory` has room for, which
    the block may lie in. None where there is none, and where they are no UTF-8. A line must not be longer than a
    twelfth of the memory."""
    machine = _machine()
    found = machine.lines(text, before, after, memory) if machine is not None else plain(text, before, after)
    return found if found is not None and found.end else None


def plain(text: bytes, before: bytes, after: bytes) -> Lines | None:
    """As `lines`, without machine code."""
    if (in_json := escaped(text)) is None:
        return None
    block = before + in_json.replace(b"\n", after + before)
    return Lines(block, block.rfind(b"\n") + 1, text.rfind(b"\n") + 1)


class Machine:
    """The code above. For one thread."""

    def __init__(self) -> None:
        """Raises OSError where the host forbids generated code."""
        self._code = MachineCode(_CODE)
        # It is over before another thread could do anything with the interpreter's lock.
        signature = ctypes.PYFUNCTYPE(ctypes.c_void_p, *[ctypes.c_void_p] * 5)
        self._call = signature(self._code.address)
        self._form = bytearray(_BREAK + _LONGEST)
        for each in range(0x20):
            escape = quoted(chr(each))[1:-1].encode()
            self._form[8 * each : 8 * each + 8] = struct.pack("7sB", escape, len(escape))
        struct.pack_into("16s16s16s", self._form, _COMPARED, *(bytes((each,)) * _STEP for each in b'\x1f"\\'))
        self._address = _address_of(self._form)

    def lines(self, text: bytes, before: bytes, after: bytes, memory: mmap) -> Lines | None:
        broken = after + before
        if len(broken) > _LONGEST:
            raise ValueError(f"{len(broken)} bytes between two lines")
        self._form[_BREAK : _BREAK + len(broken)] = broken
        struct.pack_into("Q", self._form, _BREAK_SIZE, len(broken))
        memory[: len(before)] = before
        begin, room = ctypes.cast(ctypes.c_char_p(text), ctypes.c_void_p).value or 0, _address_of(memory)
        last = room + len(memory) - _MARGIN
        behind = self._call(begin, begin + len(text), room + len(before), last, self._address)
        end, bits = struct.unpack_from("QQ", self._form, _ANSWER)
        if bits:  # some byte is none of ASCII's
            try:
                utf_8_decode(text)
            except UnicodeDecodeError:
                return None
        return Lines(memory, behind - room - len(before), end - begin)


def _address_of(memory: bytearray | mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


@lru_cache(maxsize=1)
def _machine() -> Machine | None:
    """None where there can be none."""
    try:
        return Machine() if supported() else None
    except OSError:
        return None
