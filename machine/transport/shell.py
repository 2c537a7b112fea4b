"""Shell: one `sh` on a host that runs command after command, as root: a command costs a round trip and no session.

What a command says is told from what the next one says by a mark that no command can know. The shell holds the host's
lock, where it took it; whoever it starts does not.
"""

from __future__ import annotations

import secrets
import shlex
import time
from contextlib import AbstractContextManager
from types import TracebackType
from typing import NamedTuple

import paramiko

from machine.provision.layout import LOCK
from machine.provision.step import Command
from machine.transport.connection import Connection, streams, why
from shoal.errors import Conflict, DeadlineExceeded, ShoalError, Unavailable

# A run that was killed leaves the command that it was at: its end is worth waiting for.
LOCK_S = 30.0
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Answer(NamedTuple):
    """How a command ended."""

    code: int
    stdout: str
    stderr: str
    seconds: float


class Shell:
    """Use it as a context manager; one thread at a time."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._secret = f"end-{secrets.token_hex(12)}"
        self._count = 0
        # Commands that we did not wait for: what they say comes before what the next one says.
        self._owed = 0
        self._opening: AbstractContextManager[paramiko.Channel] | None = None
        self._channel: paramiko.Channel | None = None

    def __enter__(self) -> Shell:
        self._opening = self._connection.program("exec sh")
        self._channel = self._opening.__enter__()
        self._channel.sendall(f"export PATH={_PATH} LC_ALL=C.UTF-8; umask 022\n".encode())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._opening is not None
        self._opening.__exit__(None, None, None)

    def run(self, command: Command, *, timeout_s: float = 120) -> Answer:
        """Whatever its exit code. Raises DeadlineExceeded when it says nothing for so long, and Unavailable when the
        link breaks: whether it has ended is then not known."""
        return self._run(f"{{ {line(command)}; }} < /dev/null 9>&-", timeout_s)

    def check(self, command: Command, *, timeout_s: float = 120) -> str:
        """Its output. Raises ShoalError with what it said when it fails."""
        answer = self.run(command, timeout_s=timeout_s)
        if answer.code:
            said = (answer.stderr or answer.stdout).strip() or f"exit code {answer.code}"
            raise ShoalError(f"{command.shown()}: {said.removeprefix('Error: ')}")
        return answer.stdout

    def lock(self, owner: str, *, wait_s: float = LOCK_S) -> None:
        """Hold the host for as long as this shell lives: the kernel gives the lock back, whoever is killed. Raises
        Conflict with who has it, when that does not end within `wait_s`."""
        mine = f"echo {shlex.quote(owner)} $$ > {LOCK}"
        text = f"exec 9>> {LOCK}; flock -w {wait_s:g} 9 && {mine} || {{ cat {LOCK}; false; }}"
        answer = self._run(text, wait_s + 15)
        if answer.code:
            holder, _, pid = answer.stdout.strip().rpartition(" ")
            raise Conflict(
                f"{self._connection.hop.address} is worked on by {holder or 'somebody'}",
                hint=f"wait for the end; where that computer is gone, 'kill {pid}' on the host gives the lock back",
            )

    def _run(self, text: str, timeout_s: float) -> Answer:
        assert self._channel is not None, "the shell is not open"
        began = time.monotonic()
        self._count += 1
        mark = f"{self._secret}-{self._count}."
        ends = f"printf '\\n%s %d\\n' {mark} $?; echo {mark} >&2\n"
        try:
            self._channel.sendall(f"{text}; {ends}".encode())
            stdout, stderr = self._collect(mark, timeout_s)
        except DeadlineExceeded:
            self._owed = self._count
            raise
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise Unavailable(f"the connection to {self._connection.hop.shown} broke: {why(error)}") from error
        if self._owed:
            before = f"{self._secret}-{self._owed}."
            stdout, stderr = (text.partition(before)[2].partition("\n")[2] for text in (stdout, stderr))
            self._owed = 0
        head, _, tail = stdout.rpartition(f"\n{mark} ")
        return Answer(int(tail), head, stderr.partition(f"{mark}\n")[0], time.monotonic() - began)

    def _collect(self, mark: str, timeout_s: float) -> tuple[str, str]:
        assert self._channel is not None
        got = {"stdout": bytearray(), "stderr": bytearray()}
        for stream, data in streams(self._channel, timeout_s=timeout_s):
            got[stream].extend(data)
            # The mark stands at the end: no more is looked at than it can be in.
            end = mark.encode()
            if end in got["stdout"][-96:] and got["stdout"].endswith(b"\n") and end in got["stderr"][-64:]:
                return got["stdout"].decode(errors="replace"), got["stderr"].decode(errors="replace")
        raise Unavailable(f"the shell on {self._connection.hop.shown} ended")


def line(command: Command) -> str:
    """A command in the language of sh. What it reads is written by printf, a part of the shell itself: it stands in no
    process's arguments."""
    text = shlex.join(command.argv)
    return f"printf %s {shlex.quote(command.stdin)} | {text}" if command.stdin else text
