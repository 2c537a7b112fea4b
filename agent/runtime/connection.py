"""The keeper's side of one socket connection: frames in, frames out, never blocking the loop.

`Control` answers numbered requests; `Stream` carries one process's stdio. Which one a connection is, its first frame
says (`wire`).
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from typing import Any

from agent.runtime import wire
from agent.runtime.failure import Failure
from agent.runtime.loop import IN, OUT, Loop
from agent.runtime.record import ExitRecord
from agent.runtime.stdio import Stdio

_CHUNK = 256 * 1024


def error_message(number: int, error: BaseException) -> dict[str, Any]:
    """An error as it travels; what is no Failure is a bug and says so."""
    if isinstance(error, Failure):
        return {"seq": number, "error": {"kind": error.kind, "message": error.message, "hint": error.hint}}
    message = f"keeper: {type(error).__name__}: {error}"
    return {"seq": number, "error": {"kind": "ShoalError", "message": message, "hint": ""}}


class Connection:
    """Buffers what cannot be sent now; `on_frame` and `on_close` belong to whoever uses it. Before that, and when it is
    `free` again, what comes is `received`'s."""

    def __init__(
        self, loop: Loop, connected: socket.socket, received: Callable[[Connection, int, bytes], None]
    ) -> None:
        self._loop = loop
        self._received = received
        self._socket = connected
        self._decoder = wire.Decoder()
        self._out = bytearray()
        self._reading = True
        self._closing = False
        self.free()
        connected.setblocking(False)
        loop.watch(connected.fileno(), IN, self._ready)

    @property
    def pending(self) -> int:
        """Bytes that the other side has not taken yet."""
        return len(self._out)

    @property
    def closed(self) -> bool:
        return self._socket.fileno() < 0

    def send(self, data: bytes) -> None:
        if self.closed or self._closing:
            return
        if not self._out:
            try:
                sent = self._socket.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.close()
                return
            if sent == len(data):
                return
            data = data[sent:]
        self._out += data
        self._arm()

    def free(self) -> None:
        """Whoever used it has said all: the other side may now ask for something else."""
        self.on_frame: Callable[[int, bytes], None] = partial(self._received, self)
        self.on_close: Callable[[], None] = _nothing
        self.on_sent: Callable[[], None] = _nothing

    def close_when_sent(self) -> None:
        self._closing = True
        if not self._out:
            self.close()

    def close(self) -> None:
        if not self.closed:
            self._loop.forget(self._socket.fileno())
            self._socket.close()
            self._out.clear()
            self.on_close()

    def read(self, *, wanted: bool) -> None:
        """Stop or go on taking what the other side sends."""
        if wanted != self._reading and not self.closed:
            self._reading = wanted
            self._arm()

    def _arm(self) -> None:
        self._loop.change(self._socket.fileno(), (IN if self._reading else 0) | (OUT if self._out else 0))

    def _ready(self, events: int) -> None:
        if events & OUT and self._out:
            try:
                sent = self._socket.send(self._out[:_CHUNK])
            except BlockingIOError:
                sent = 0
            except OSError:
                self.close()
                return
            del self._out[:sent]
            if not self._out and self._closing:
                self.close()
                return
            self._arm()
            self.on_sent()
        if events & ~OUT and not self.closed:
            self._receive()

    def _receive(self) -> None:
        try:
            data = self._socket.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        try:
            for kind, payload in self._decoder.feed(data):
                self.on_frame(kind, payload)
        except ValueError:
            self.close()


def _nothing() -> None:
    """Nobody has to be told."""


class Stream:
    """One attachment: output to the client, input and orders from it. Closing it does not end the process."""

    def __init__(self, connection: Connection, stdio: Stdio, *, stdin: bool, signal: Callable[[int], None]) -> None:
        self._connection = connection
        self._stdio = stdio
        self._stdin = stdin
        self._signal = signal
        connection.on_frame = self._frame
        connection.on_close = self._gone
        connection.on_sent = lambda: self._stdio.caught_up()
        self.abandoned: Callable[[], None] = lambda: None
        stdio.attach(self)

    @property
    def pending(self) -> int:
        return self._connection.pending

    def answer(self, result: dict[str, Any]) -> None:
        self._connection.send(wire.message({"seq": 0, "result": result}))

    def refuse(self, error: BaseException) -> None:
        self._connection.send(wire.message(error_message(0, error)))
        self._connection.close_when_sent()

    def output(self, stream: int, data: bytes) -> None:
        self._connection.send(wire.frame(stream, data))

    def ended(self, exit_: ExitRecord) -> None:
        self._connection.send(wire.message({"exit": exit_._asdict()}))
        self._connection.free()

    def input_drained(self) -> None:
        self._connection.read(wanted=True)

    def _frame(self, kind: int, payload: bytes) -> None:
        if kind == wire.STDIN:
            if self._stdin and not self._stdio.write(payload):
                self._connection.read(wanted=False)
        elif kind == wire.STDIN_END:
            if self._stdin:
                self._stdio.end_input()
        elif kind == wire.JSON:
            order = wire.value(payload)
            if order["op"] == "resize":
                self._stdio.resize(order["rows"], order["columns"])
            elif order["op"] == "signal":
                self._signal(order["number"])

    def _gone(self) -> None:
        self._stdio.detach(self)
        self.abandoned()
