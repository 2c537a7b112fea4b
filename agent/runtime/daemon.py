"""The keeper's process: what it is made of, the lock by which there is one, and how it replaces its own code.

It starts as a command line that forks: the parent ends once the child listens. SIGTERM ends it and leaves the
containers; SIGHUP replaces its code by exec. What a keeper does, `keeper` says.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import resource
import signal
import sys
from pathlib import Path

from agent.kernel import machinecode, syscalls, unwritable
from agent.kernel.portable import Portable
from agent.kernel.program import Executor
from agent.kernel.trampoline import Trampoline
from agent.runtime import wire
from agent.runtime.cgroups.group import Groups
from agent.runtime.custody import Custody
from agent.runtime.holder import Holder
from agent.runtime.keeper import Keeper
from agent.runtime.loop import Loop
from agent.runtime.record import Records
from agent.runtime.starter import Starter

WORKERS = 4  # more gain nothing on few cores: starts are bound by the kernel
_HEAP = 4 << 20  # what passing output on takes again and again
_REEXEC = "SHOAL_KEEPER_REEXEC"  # the descriptor of the lock, for the code that replaces ours


def _default_signals() -> None:
    """Children inherit what is ignored, whatever clone is told: ignore nothing, handle what Python ignores."""
    for number in signal.valid_signals():
        with contextlib.suppress(OSError):
            if signal.getsignal(number) == signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
    syscalls.heed_internal_signals()
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, lambda _number, _frame: None)


def _lock(directory: Path) -> int:
    """One keeper per directory; the other one that was started at the same moment gives way. A keeper that replaces
    its code holds the lock all the while."""
    if _REEXEC in os.environ:
        fd = int(os.environ.pop(_REEXEC))
        os.set_inheritable(fd, False)
        return fd
    fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(0)
    return fd


def main() -> None:
    """argv: the state directory, the socket's path. Returns in the parent once the keeper listens."""
    directory, path = Path(sys.argv[1]), Path(sys.argv[2])
    if _REEXEC not in os.environ:  # whatever it was started with, it needs none of it
        syscalls.call("close_range", 3, (1 << 32) - 1, 0)
    reader, writer = os.pipe()
    if _REEXEC not in os.environ:
        if os.fork():
            os.close(writer)
            sys.exit(0 if os.read(reader, 1) else 1)
        os.setsid()
    os.close(reader)
    os.chdir("/")
    os.umask(0o022)
    records = Records(directory)
    lock = _lock(directory)
    _default_signals()
    syscalls.forbid_dumps()
    syscalls.set_process_name("shoal-keeper")
    syscalls.keep_heap(_HEAP)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    executor: Executor = _executor()
    groups = Groups(lends=True)
    loop = Loop(WORKERS)
    holder = Holder(directory)
    keeper = Keeper(loop, records, groups, Starter(records, groups, executor, nofile=soft), Custody(loop, holder))
    keeper.adopt()
    listener = wire.listen(path)
    keeper.serve(listener)
    signal.signal(signal.SIGTERM, lambda _number, _frame: loop.call(loop.stop))
    signal.signal(signal.SIGHUP, lambda _number, _frame: loop.call(lambda: _reexec(loop, keeper, lock)))
    with contextlib.suppress(BrokenPipeError):  # nobody waits when our code was replaced
        os.write(writer, b"1")
    os.close(writer)
    gc.collect()
    gc.freeze()  # what is here now stays: no collection need look at it again
    loop.run()
    if keeper.idle:
        holder.quit()
    path.unlink(missing_ok=True)
    os.close(lock)


def _executor() -> Executor:
    if machinecode.supported() and os.environ.get("SHOAL_EXECUTOR") != "portable":
        with contextlib.suppress(OSError):
            return Trampoline()
    return Portable()


def _reexec(loop: Loop, keeper: Keeper, lock: int) -> None:
    """Replace our code, keeping our pid and so our children; descriptors come back from the holder."""
    if keeper.starting:
        loop.call(lambda: _reexec(loop, keeper, lock))  # its result comes through this same queue
        return
    os.set_inheritable(lock, True)
    os.environ[_REEXEC] = str(lock)
    os.execv(f"/proc/self/fd/{unwritable.program(sys.executable)}", [*sys.orig_argv])
