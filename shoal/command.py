"""Other programs, run as argument lists, never through a shell.

Not asyncio's: uvloop forks, and gRPC's handlers of that may crash the child (SIGSEGV) where other threads are within
gRPC. `subprocess` uses vfork(2), which runs no handlers.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Mapping, Sequence
from typing import IO

import msgspec

from shoal.errors import ShoalError


class Result(msgspec.Struct, frozen=True):
    code: int
    stdout: bytes
    stderr: bytes


class Child:
    """A program that runs, with its streams; whoever started it waits for its end. stdin and stdout are there if they
    were asked for."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._transports: list[asyncio.BaseTransport] = []
        self.stdin: asyncio.StreamWriter | None = None
        self.stdout: asyncio.StreamReader | None = None
        self.stderr = asyncio.StreamReader()

    @classmethod
    async def start(cls, argv: Sequence[str], *, stdin: bool, stdout: bool, environment: Mapping[str, str]) -> Child:
        """Raises FileNotFoundError where there is no such program."""
        pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
        process = subprocess.Popen(  # noqa: ASYNC220  # it waits for the exec alone
            argv,
            stdin=pipe if stdin else nothing,
            stdout=pipe if stdout else nothing,
            stderr=pipe,
            env=environment,
        )
        child = cls(process)
        child.stderr = await child._reader(process.stderr)
        child.stdout = await child._reader(process.stdout) if stdout else None
        child.stdin = await child._writer(process.stdin) if stdin else None
        return child

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def kill(self) -> None:
        self._process.kill()

    async def wait(self) -> int:
        """Its code, once it has ended; its streams are closed then, and what was not read of them is lost."""
        code = await asyncio.to_thread(self._process.wait)
        for transport in self._transports:
            transport.close()
        return code

    async def _reader(self, pipe: IO[bytes] | None) -> asyncio.StreamReader:
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        self._transports.append(transport)
        return reader

    async def _writer(self, pipe: IO[bytes] | None) -> asyncio.StreamWriter:
        loop = asyncio.get_running_loop()
        # The protocol of a writer without a reader: it only tells when the pipe is full.
        transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, pipe)
        self._transports.append(transport)
        return asyncio.StreamWriter(transport, protocol, None, loop)


async def run(
    argv: Sequence[str], *, stdin: bytes = b"", check: bool = True, environment: Mapping[str, str] | None = None
) -> Result:
    """Run to the end, in our environment unless another is given. With `check`, a code other than 0 raises ShoalError
    with what it said on stderr.

    A cancelled call kills the program and waits for it. Raises ShoalError where there is no such program.
    """
    # A file in memory (memfd_create(2)): a pipe would break where the program ends before it has read all of it.
    source = os.memfd_create("stdin", os.MFD_CLOEXEC)
    try:
        os.write(source, stdin)
        os.lseek(source, 0, os.SEEK_SET)
        process = subprocess.Popen(  # noqa: ASYNC220  # it waits for the exec alone
            argv, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
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
