"""Other programs, run as argument lists, never through a shell."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Sequence

import msgspec

from shoal.errors import ShoalError


class Result(msgspec.Struct, frozen=True):
    code: int
    stdout: bytes
    stderr: bytes


async def run(argv: Sequence[str], *, stdin: bytes = b"", check: bool = True) -> Result:
    """Run to the end. With `check`, a code other than 0 raises ShoalError with what it said on stderr.

    A cancelled call kills the program and waits for it.
    """
    # A file in memory (memfd_create(2)): a pipe would break where the program ends before it has read all of it.
    source = os.memfd_create("stdin", os.MFD_CLOEXEC)
    try:
        os.write(source, stdin)
        os.lseek(source, 0, os.SEEK_SET)
        # Not asyncio's: uvloop forks, and gRPC's handlers of that may crash the child (SIGSEGV) where other threads are
        # within gRPC. `subprocess` uses vfork(2), which runs no handlers.
        process = subprocess.Popen(  # noqa: ASYNC220  # it waits for the exec alone
            argv, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    except FileNotFoundError as error:
        raise ShoalError(f"{argv[0]} is not installed on this host", hint="install it and try again") from error
    finally:
        os.close(source)
    ending = asyncio.ensure_future(asyncio.to_thread(process.communicate))
    try:
        stdout, stderr = await asyncio.shield(ending)
    except asyncio.CancelledError:
        process.kill()
        await ending
        raise
    result = Result(process.returncode, stdout, stderr)
    if check and result.code:
        said = stderr.decode(errors="replace").strip() or f"exit code {result.code}"
        raise ShoalError(f"{' '.join(argv)}: {said}")
    return result
