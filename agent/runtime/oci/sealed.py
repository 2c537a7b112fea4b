"""A copy of the interpreter that nobody can write: what a container may see as `/proc/self/exe` before its own command.

An image can make the kernel run that link (a symbolic link, a first line of a script), with a loader of its own, keep
the file open and write to it once nobody runs it: CVE-2019-5736. So what enters a container runs from a sealed memfd.
Only what needs nothing else is imported here, since it comes before everything.
"""

from __future__ import annotations

import fcntl
import os
import sys

import shoal

_MARK = "SHOAL_RUNTIME_SEALED"
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
ENTERING = ("create", "run", "exec")  # the commands that make a process inside; `start` does with some hooks


_sealed = bool(os.environ.pop(_MARK, ""))


def seal() -> None:
    """Replace this process by itself, run from the copy, unless it is already."""
    if _sealed:
        return
    copy = os.memfd_create("shoal-runtime", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    source = os.open(sys.executable, os.O_RDONLY | os.O_CLOEXEC)
    while os.sendfile(copy, source, None, 1 << 30):
        pass
    os.fchmod(copy, 0o500)
    fcntl.fcntl(copy, fcntl.F_ADD_SEALS, _SEALS)
    ground = shoal.__path__[0].rpartition("/")[0]  # which opens the rooms, wherever they stand
    code = f"import sys; sys.path.insert(0, {ground!r}); import shoal; from agent.runtime.oci.main import run; run()"
    argv = [sys.executable, "-I", "-S", "-E", "-c", code, *sys.argv[1:]]
    os.execve(f"/proc/self/fd/{copy}", argv, {**os.environ, _MARK: "1"})
