"""A process of a container in the foreground: its bytes here, our keys, signals and window size there.

`run`, `start -a`, `attach` and `exec` hand over an open call (`calls.Call`) and its first message; both kinds of stream
have the same shape. What is typed is read by a thread, because a file or /dev/null at stdin cannot be polled.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

from cli import terminal
from cli.output.screen import write_stderr, write_stdout
from shoal.errors import Conflict, Unavailable
from shoal.v1 import engine_pb2

_CHUNK = 32 << 10
_PROXIED = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGCONT,
)


class Manners(NamedTuple):
    """How the foreground behaves. Signals are never proxied through a terminal: it makes them of keys itself.
    Without `detach_keys` they are docker's. With `until_started` it ends as soon as the process runs (`exec -d`)."""

    stdin: bool = False
    tty: bool = False
    proxy_signals: bool = True
    detach_keys: bytes = b""
    until_started: bool = False


class Ended(NamedTuple):
    """`code` is None when the user let go and the process goes on."""

    code: int | None


def let_go() -> int:
    """Say that the user let go of what was there before: docker's words, and its exit code."""
    print("read escape sequence", file=sys.stderr)
    return 1


async def follow(call: Any, opening: Any, manners: Manners) -> Ended:
    """Send `opening`, then carry bytes both ways until the process ends or the user detaches.

    Raises ShoalError for what the daemon refuses (with its exit code), and Unavailable when the link breaks.
    """
    conversation = _Conversation(call, type(opening))
    takes_terminal = manners.tty and manners.stdin and terminal.is_terminal(terminal.STDIN)
    with contextlib.ExitStack() as stack:
        if takes_terminal:
            stack.enter_context(terminal.raw(terminal.STDIN))
        stack.enter_context(_signals(conversation, manners))
        await conversation.send(opening)
        listening = asyncio.create_task(conversation.listen(until_started=manners.until_started))
        typing = asyncio.create_task(conversation.type(manners)) if manners.stdin else None
        try:
            detached = conversation.detached
            waiting = asyncio.create_task(detached.wait())
            await asyncio.wait({listening, waiting}, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if listening.done():
                return Ended(await listening)
            return Ended(None)
        finally:
            under_way = {each for each in (listening, typing) if each is not None}
            for each in under_way:
                each.cancel()
            await asyncio.wait(under_way)
            call.cancel()  # the process goes on: only its end, or who kills it, ends it


class _Conversation:
    def __init__(self, call: Any, make: Callable[..., Any]) -> None:
        self.detached = asyncio.Event()
        self._call = call
        self._make = make
        self._later: set[asyncio.Task[None]] = set()

    async def send(self, message: Any) -> None:
        await self._call.write(message)

    def send_soon(self, **fields: Any) -> None:
        """From a signal handler. A call that has ended meanwhile does not mind."""
        task = asyncio.get_running_loop().create_task(self.send(self._make(**fields)))
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def listen(self, *, until_started: bool) -> int | None:
        """Write what comes until the exit code does; None when `until_started` ended it."""
        while True:
            response = await self._call.read()
            if response is None:
                raise Unavailable("the stream ended without an exit code", hint="see 'shoal ps' for what still runs")
            kind = response.WhichOneof("response")
            if kind == "stdout":
                write_stdout(response.stdout)
            elif kind == "stderr":
                write_stderr(response.stderr)
            elif kind == "started" and until_started:
                return None
            elif kind == "exit":
                if response.exit.error:
                    write_stderr(f"Error: {response.exit.error}\n".encode())
                return int(response.exit.code)

    async def type(self, manners: Manners) -> None:
        """Pass on what is typed, until the end of input or the detach keys."""
        keys = terminal.DetachKeys((manners.detach_keys or terminal.DEFAULT_DETACH_KEYS) if manners.tty else b"")
        async for data in _stdin():
            passed, done = keys.feed(data)
            if passed:
                await self.send(self._make(stdin=passed))
            if done:
                self.detached.set()
                return
        await self.send(self._make(stdin_close=True))


async def _stdin() -> AsyncIterator[bytes]:
    """What comes in at descriptor 0, chunk by chunk; the thread waits until each is taken."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[bytes] = asyncio.Queue(1)

    def read() -> None:
        while True:
            try:
                data = os.read(terminal.STDIN, _CHUNK)
            except OSError:
                data = b""
            try:
                asyncio.run_coroutine_threadsafe(queue.put(data), loop).result()
            except (RuntimeError, asyncio.CancelledError):  # the loop is over, nobody listens
                return
            if not data:
                return

    threading.Thread(target=read, name="stdin", daemon=True).start()
    while data := await queue.get():
        yield data


@contextlib.contextmanager
def _signals(conversation: _Conversation, manners: Manners) -> Any:
    """Hand signals on, and tell of each new size of the window."""
    loop = asyncio.get_running_loop()
    wanted: dict[signal.Signals, Callable[[], None]] = {}
    if manners.tty:
        wanted[signal.SIGWINCH] = lambda: conversation.send_soon(resize=window())
    elif manners.proxy_signals:
        for number in _PROXIED:
            wanted[number] = lambda number=number: conversation.send_soon(signal=number.name)  # type: ignore[misc]
    for number, handler in wanted.items():
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in wanted:
            loop.remove_signal_handler(number)


def check_terminal(*, stdin: bool, tty: bool) -> None:
    """A container's terminal needs one of ours to be typed at."""
    if stdin and tty and not terminal.is_terminal(terminal.STDIN):
        raise Conflict("the input device is not a TTY", hint="leave -t out to read from a pipe")


def window() -> engine_pb2.Size:
    """The size of the terminal, for the wire."""
    rows, columns = terminal.size()
    return engine_pb2.Size(rows=rows, columns=columns)
