"""What became of a start, in docker's words: which step failed on what, and whether it was the command's fault."""

from __future__ import annotations

import errno
import json
import os
from typing import TYPE_CHECKING

from agent.runtime.failure import Failure

if TYPE_CHECKING:  # a short command of `oci` needs neither
    from agent.kernel.program import Failed
    from agent.runtime.spec.process import Process

_LOOKED_UP = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ELOOP, errno.ENAMETOOLONG)


def translated(failed: Failed, process: Process) -> Failure:
    """A failed program in docker's words, with the step and errno that tell what happened."""
    name, number = process.args[0], failed.errno
    detail = f"({failed.op.call}, errno {number})"
    if failed.op.call not in ("execve", "faccessat") or not number:
        kind = "SettingNotFound" if number == errno.ENOENT else "StartFailed"
        hint = "the path contains a symbolic link where none is allowed" if number == errno.ELOOP else ""
        return Failure(kind, f"unable to start container process: {failed}", hint)
    if "/" not in name and number in _LOOKED_UP:
        return Failure("CommandNotFound", f'exec: "{name}": executable file not found in $PATH {detail}')
    if number in (errno.ENOENT, errno.ENOTDIR):
        return Failure(
            "CommandNotFound",
            f'exec: "{name}": stat {name}: no such file or directory {detail}',
            "if the file is there, the interpreter that its first line names is not",
        )
    if number == errno.EACCES:
        return Failure("CommandNotExecutable", f'exec: "{name}": permission denied {detail}')
    if number == errno.ENOEXEC:
        return Failure("CommandNotExecutable", f'exec: "{name}": exec format error {detail}')
    return Failure("StartFailed", f'exec: "{name}": {os.strerror(number)} {detail}')


def failure(error: BaseException) -> BaseException:
    """What the agent is told: a Failure as it is, an OSError with its words, a bug as itself."""
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        return Failure("StartFailed", f"unable to start container process: {error.strerror or error}{where}")
    return error


def told(text: bytes) -> Failure | None:
    """What a child wrote about its failure."""
    if not text:
        return None
    kind, message, hint = json.loads(text)
    return Failure(kind, message, hint)


def wrapped(error: BaseException) -> Failure:
    """An error of ours in the words of a start that failed."""
    found = failure(error)
    return found if isinstance(found, Failure) else Failure("ShoalError", f"{type(error).__name__}: {error}")
