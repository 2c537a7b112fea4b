"""The kernel's door: system calls, the programs made of them, and what executes a program in a new process.

`syscalls` is the one ctypes table. `program` is a container's start as a pure value, `table` its form in memory,
`trampoline` the fast executor (`machinecode` in a `CLONE_VM|CLONE_VFORK` child), `portable` the one in plain Python.
`pidfd`, `openat2`, `spread`, `syncs` and `overlay` wrap one kernel feature each, `aio` one of the C library;
`descriptors` closes what was open for a moment. Only the standard library is imported here: the keeper loads it.
"""
