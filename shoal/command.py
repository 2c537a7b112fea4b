"""Other programs, run as argument lists, never through a shell."""

from __future__ import annotations

import asyncio
import os
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
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=source, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
    except FileNotFoundError as error:
        raise ShoalError(f"{argv[0]} is not installed on this host", hint="install it and try again") from error
    finally:
        os.close(source)
    try:
        stdout, stderr = await process.communicate()
    except asyncio.CancelledError:
        if process.returncode is None:
            process.kill()
            await process.wait()
        raise
    result = Result(process.returncode or 0, stdout, stderr)
    if check and result.code:
        said = stderr.decode(errors="replace").strip() or f"exit code {result.code}"
        raise ShoalError(f"{' '.join(argv)}: {said}")
    return result
