"""The fast executor (x86-64): 178 bytes of machine code clone a child that walks the table (`table`) to execve.

The child shares our memory (CLONE_VM) and we wait in the kernel until it has exec'ed or died (CLONE_VFORK), so no page
of the interpreter is copied, and no Python, libc or lock runs in the child: it cannot deadlock in a process with
threads. The thread that calls is stuck meanwhile, with the GIL released: call it from a worker thread. VFORK is not
optional: the kernel's OOM killer spares the parent of a vfork child, but kills any other process that shares memory.

    ; rdi = struct clone_args, rsi = its size, rdx = first entry; the word before it notes the entry at work
    push rbx / mov rbx,rdx / mov eax,435 / syscall            ; clone3(2)
    test rax,rax / je child / pop rbx / ret                   ; the parent returns the pid or -errno
    child: mov r15,rbx
    next:  mov [r15-8],rbx / mov rax,[rbx]
           mov rdi,[rbx+8] / mov rsi,[rbx+16] / mov rdx,[rbx+24]
           mov r10,[rbx+32] / mov r8,[rbx+40] / mov r9,[rbx+48] / mov r12,[rbx+56]
           test r12b,1 / je .+4 / mov rdi,[rbx+rdi]           ; likewise rsi 2, rdx 4, r10 8, r8 16, r9 32
           syscall / mov [rbx+88],rax / cmp rax,-4096 / ja failed
           add rbx,[rbx+72] / jmp next
    failed: neg rax / cmp rax,63 / ja die / mov r12,[rbx+64] / bt r12,rax / jnc die
           add rbx,[rbx+80] / jmp next
    die:   mov edi,127 / mov eax,231 / syscall / jmp die      ; exit_group(127)
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import signal
import struct
import threading

from agent.kernel import syscalls, table
from agent.kernel.machinecode import MachineCode
from agent.kernel.program import Failed, Op, Process, Program

_CODE = bytes.fromhex(
    "534889d3b8b30100000f054885c074025bc34989df49895ff8488b03488b7b08"
    "488b7310488b53184c8b53204c8b43284c8b4b304c8b633841f6c4017404488b"
    "3c3b41f6c4027404488b343341f6c4047404488b141341f6c40874044e8b1413"
    "41f6c41074044e8b040341f6c42074044e8b0c0b0f0548894358483d00f0ffff"
    "770648035b48eb8d48f7d84883f83f77134c8b6340490fa3c4730948035b50e9"
    "71ffffffbf7f000000b8e70000000f05ebf2"
)
_STACK = 16384
_ARGS = struct.Struct("<11Q")  # struct clone_args, CLONE_ARGS_SIZE_VER2
_FIRST = _STACK + 128  # room for clone_args, the pidfd and the progress word


class Trampoline:
    """Starts processes. One instance serves any number of threads; each thread gets memory of its own."""

    def __init__(self) -> None:
        """Raises OSError where the host forbids generated code."""
        self._code = MachineCode(_CODE)
        signature = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
        self._enter = signature(self._code.address)
        self._slots = threading.local()
        self._own_pids = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)

    def start(self, program: Program, flags: int, *, cgroup_fd: int = -1, pid_namespace: int = -1) -> Process:
        """Run `program` in a new child with the new namespaces of `flags`; return when it has exec'ed.

        The child begins in the v2 cgroup of `cgroup_fd` and the pid namespace of `pid_namespace` (a pidfd or a
        namespace's file), if given. Raises Failed, or OSError when there could be no child.
        """
        if pid_namespace < 0:
            return self._start(program, flags, cgroup_fd)
        syscalls.setns(pid_namespace, syscalls.CLONE_NEWPID)  # only this thread, only for its children
        try:
            return self._start(program, flags, cgroup_fd)
        finally:
            syscalls.setns(self._own_pids, syscalls.CLONE_NEWPID)

    def _start(self, program: Program, flags: int, cgroup_fd: int) -> Process:
        code = table.link(program)
        slot = self._slot(_FIRST + len(code))
        base = ctypes.addressof(ctypes.c_char.from_buffer(slot))
        slot[_FIRST : _FIRST + len(code)] = code
        struct.pack_into("<i", slot, _STACK + 96, -1)
        flags |= syscalls.CLONE_VM | syscalls.CLONE_VFORK | syscalls.CLONE_CLEAR_SIGHAND | syscalls.CLONE_PIDFD
        if cgroup_fd >= 0:
            flags |= syscalls.CLONE_INTO_CGROUP
        _ARGS.pack_into(
            slot, _STACK, flags, base + _STACK + 96, 0, 0, signal.SIGCHLD, base, _STACK, 0, 0, 0, max(cgroup_fd, 0)
        )
        pid = int(self._enter(base + _STACK, _ARGS.size, base + _FIRST))
        if pid < 0:
            raise OSError(-pid, f"clone3: {os.strerror(-pid)}")
        pidfd: int = struct.unpack_from("<i", slot, _STACK + 96)[0]
        stopped = (struct.unpack_from("<Q", slot, _FIRST - 8)[0] - base - _FIRST) // table.SIZE
        op = table.op_at(program, stopped)
        result: int = struct.unpack_from("<q", slot, _FIRST + stopped * table.SIZE + table.RESULT)[0]
        if op.call == "execve" and result == table.UNRUN:
            return Process(pid, pidfd)
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        os.close(pidfd)
        if op.call == "exit_group":  # every execve failed with an ignored error: report the last one that ran
            op, result = last_failure(program, bytes(slot[_FIRST : _FIRST + len(code)]))
        raise Failed(op, -result if -4096 < result < 0 else 0)

    def _slot(self, size: int) -> mmap.mmap:
        slot: mmap.mmap | None = getattr(self._slots, "memory", None)
        if slot is None or len(slot) < size:
            slot = mmap.mmap(-1, max(65536, (size + 65535) & ~65535))
            self._slots.memory = slot
        return slot


def last_failure(program: Program, code: bytes) -> tuple[Op, int]:
    """The last execve that ran, and its result: the errno that tells most, EACCES before ENOENT."""
    worst: tuple[Op, int] | None = None
    for index, op in enumerate(program.ops):
        result: int = struct.unpack_from("<q", code, index * table.SIZE + table.RESULT)[0]
        if op.call == "execve" and result != table.UNRUN and (worst is None or result != -errno.ENOENT):
            worst = (op, result)
    if worst is None:
        raise ValueError("a program must end in execve")
    return worst
