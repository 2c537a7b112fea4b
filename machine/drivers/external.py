"""A driver of somebody else: the program `shoal-machine-driver-NAME` on PATH, which speaks JSON-RPC 2.0 on its standard
input and output, one message a line (docs/machine.md has the words). What it says on standard error goes to the user.

It runs for as long as a command needs it, and keeps what it must remember in the folder that it is told.
"""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from machine.driver import VERBS, Made, cannot
from machine.model import Machine, Ssh
from machine.port import State
from shoal.errors import Conflict, DeadlineExceeded, InvalidArgument, NotFound, ShoalError, Unavailable, Unsupported

PREFIX = "shoal-machine-driver-"
_CALL_S = 900.0
_END_S = 10.0
_MOST_BYTES = 1 << 20
# What `error.data.kind` may say.
_KINDS: dict[str, type[ShoalError]] = {
    "conflict": Conflict,
    "invalid": InvalidArgument,
    "not found": NotFound,
    "unavailable": Unavailable,
    "unsupported": Unsupported,
}
T = TypeVar("T")


class _Data(msgspec.Struct):
    kind: str = ""
    hint: str = ""


class _Error(msgspec.Struct):
    code: int
    message: str
    data: _Data = msgspec.field(default_factory=_Data)


class _Answer(msgspec.Struct):
    id: int | None = None
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: _Error | None = None


class _Hello(msgspec.Struct):
    abilities: list[str]


class _Host(msgspec.Struct):
    address: str
    user: str = ""
    port: int = 0
    key: str = ""
    host_key: str = ""
    advertise: str = ""

    def made(self) -> Made:
        ssh = Ssh(self.user, self.port, (self.key,) if self.key else (), host_key=self.host_key)
        return Made(self.address, ssh, self.advertise)


class _Nothing(msgspec.Struct):
    """Whatever it says."""


class _State(msgspec.Struct):
    state: State


class ExternalDriver:
    """Start it with `open`; `close` ends the program."""

    def __init__(self, name: str, process: subprocess.Popen[bytes]) -> None:
        self.name = name
        self.abilities: frozenset[str] = frozenset()
        self._process = process
        self._count = 0
        self._read = bytearray()

    @classmethod
    def open(cls, name: str, folder: Path) -> ExternalDriver:
        """`folder` is made for it. Raises Unsupported where there is no such program."""
        program = shutil.which(f"{PREFIX}{name}")
        if program is None:
            raise Unsupported(f'there is no driver "{name}"', hint=f"no {PREFIX}{name} is on PATH")
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        self = cls(name, process)
        try:
            hello = self._call("initialize", _Hello, protocol=1, folder=str(folder))
        except BaseException:
            self.close()
            raise
        self.abilities = VERBS & set(hello.abilities)
        return self

    def create(self, name: str, options: Mapping[str, str]) -> Made:
        return self._ask("create", _Host, name, options=dict(options)).made()

    def remove(self, machine: Machine) -> None:
        self._ask("remove", _Nothing, machine.name)

    def start(self, machine: Machine) -> Made:
        return self._ask("start", _Host, machine.name).made()

    def stop(self, machine: Machine) -> None:
        self._ask("stop", _Nothing, machine.name)

    def kill(self, machine: Machine) -> None:
        self._ask("kill", _Nothing, machine.name)

    def restart(self, machine: Machine) -> Made:
        return self._ask("restart", _Host, machine.name).made()

    def state(self, machine: Machine) -> State:
        return self._ask("state", _State, machine.name).state

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _ask(self, verb: str, kind: type[T], name: str, **parameters: object) -> T:
        if verb not in self.abilities:
            raise cannot(self.name, verb, name)
        return self._call(verb, kind, name=name, **parameters)

    def _call(self, method: str, kind: type[T], **parameters: object) -> T:
        self._count += 1
        request = {"jsonrpc": "2.0", "id": self._count, "method": method, "params": parameters}
        self._send(msgspec.json.encode(request) + b"\n")
        until = time.monotonic() + _CALL_S
        while (answer := self._parse(self._line(until), _Answer)).id != self._count:
            """A notification, which we have no use for."""
        if answer.error is not None:
            raise self._raised(answer.error)
        return self._parse(bytes(answer.result), kind)

    def _send(self, data: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(data)
        except OSError as error:
            raise self._ended() from error

    def _line(self, until: float) -> bytes:
        assert self._process.stdout is not None
        out = self._process.stdout.fileno()
        while b"\n" not in self._read:
            if len(self._read) > _MOST_BYTES:
                raise ShoalError(f'driver "{self.name}" says more than {_MOST_BYTES} bytes in one line')
            if not select.select([out], [], [], max(0.0, until - time.monotonic()))[0]:
                raise DeadlineExceeded(f'driver "{self.name}" has not answered for {_CALL_S:.0f} s')
            data = os.read(out, 1 << 16)
            if not data:
                raise self._ended()
            self._read += data
        line, _, rest = bytes(self._read).partition(b"\n")
        self._read = bytearray(rest)
        return line

    def _parse(self, data: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(data, type=kind)
        except msgspec.MsgspecError as error:
            said = data[:200].decode(errors="replace")
            raise ShoalError(f'driver "{self.name}" does not keep to the protocol: {error}: {said}') from error

    def _raised(self, error: _Error) -> ShoalError:
        kind = _KINDS.get(error.data.kind, ShoalError)
        return kind(f'driver "{self.name}": {error.message}', hint=error.data.hint)

    def _ended(self) -> ShoalError:
        return Unavailable(f'driver "{self.name}" ended', hint="it should say why on standard error")
