"""Keeps the resolver process running while there is a gateway to answer on: starts it, adopts one that is there
already, replaces one of another version, starts it again when it dies. `resolver.py` is the process itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

from shoal.backoff import Backoff
from shoal.errors import ShoalError, Unavailable

log = logging.getLogger(__name__)

_PROGRAM = Path(__file__).with_name("resolver.py")
_PARTS = [_PROGRAM.with_name(f"{name}.py") for name in ("resolver", "source", "message", "zone")]
_ANSWER_S = 10.0


class _Control(asyncio.Protocol):
    """One conversation with a resolver, a word and a line at a time. `ended`: the other side is gone."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self._lines: asyncio.Queue[bytes] = asyncio.Queue()
        self._rest = b""
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._lines.put_nowait(line)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 — asyncio's signature
        self.ended.set()
        self._lines.put_nowait(b"")

    async def ask(self, word: str) -> dict[str, Any]:
        """Raises Unavailable when the resolver is gone or silent; this conversation is over then."""
        try:
            if self._transport is None or self.ended.is_set():
                raise Unavailable("the resolver ended")
            self._transport.write(word.encode() + b"\n")
            async with asyncio.timeout(_ANSWER_S):
                line = await self._lines.get()
            if not line:
                raise Unavailable("the resolver ended")
        except TimeoutError as error:
            self.close()
            raise Unavailable(f"the resolver has been silent for {_ANSWER_S:g} s") from error
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class ResolverProcess:
    """`folder` is the network folder; the zones are in `folder`/zones. `chance` spreads restarts."""

    def __init__(self, folder: Path, resolv_conf: Path, chance: Callable[[], float]) -> None:
        self.zones = folder / "zones"
        self._folder = folder
        self.resolv_conf = resolv_conf
        self.version = hashlib.sha256(b"".join(path.read_bytes() for path in _PARTS)).hexdigest()[:16]
        self._backoff = Backoff(0.1, 10, chance=chance)
        self._lock = asyncio.Lock()
        self._control: _Control | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._failed: dict[str, str] = {}

    async def refresh(self) -> None:
        """Gateways came or went: the resolver runs if there is one, and listens on them all when this returns.

        A gateway on which it cannot listen is logged, and tried again by the resolver every few seconds.
        Raises Unavailable when no resolver can be started.
        """
        async with self._lock:
            if self._needed():
                control = await self._running()
                self._note((await control.ask("reload")).get("failed", {}))
                if self._watch is None or self._watch.done():
                    self._watch = asyncio.create_task(self._guard(), name="resolver")
            else:
                await self._end("reload")  # it finds nothing to do

    async def close(self) -> None:
        """Leave the resolver to itself; the next agent adopts it."""
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch
        if self._control is not None:
            self._control.close()

    def _needed(self) -> bool:
        return any(self.zones.glob("*.json"))

    async def _running(self) -> _Control:
        control = await self._connect()
        if control is not None:
            with contextlib.suppress(Unavailable):
                if (await control.ask("hello")).get("version") == self.version:
                    return control
                log.info("replacing the resolver, which is of another version")
                await self._end("stop")
        return await self._start()

    async def _start(self) -> _Control:
        await self._reap()
        self._control = None
        self._child = await asyncio.to_thread(self._spawn)
        control = await self._connect()
        if control is None:
            raise Unavailable("the resolver does not start", hint=f"see {self._folder / 'resolver.log'}")
        log.info("resolver started as process %d", self._child.pid)
        return control

    def _spawn(self) -> subprocess.Popen[bytes]:
        """With the listening control socket as its input, so that it can be spoken to at once."""
        output = os.open(self._folder / "resolver.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as listening:
                with self._socket_path() as path:
                    Path(path).unlink(missing_ok=True)
                    listening.bind(path)
                listening.listen(16)
                return subprocess.Popen(
                    [
                        sys.executable, "-I", "-S", "-E", str(_PROGRAM),
                        str(self.zones), str(self.resolv_conf), self.version,
                    ],
                    stdin=listening.fileno(), stdout=output, stderr=output, cwd="/", env={}, start_new_session=True,
                )  # fmt: skip
        finally:
            os.close(output)

    async def _connect(self) -> _Control | None:
        """The conversation with the resolver that is there, if one is."""
        if self._control is not None and not self._control.ended.is_set():
            return self._control
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        connection.setblocking(False)
        try:
            with self._socket_path() as path:
                connection.connect(path)
        except OSError:
            connection.close()
            return None
        loop = asyncio.get_running_loop()
        _, self._control = await loop.create_unix_connection(_Control, sock=connection)
        return self._control

    async def _end(self, word: str) -> None:
        """Say the word that ends the resolver, if there is one, and wait until it is gone."""
        control = await self._connect()
        if control is not None:
            with contextlib.suppress(Unavailable, TimeoutError):
                await control.ask(word)
                async with asyncio.timeout(_ANSWER_S):
                    await control.ended.wait()
            control.close()
        await self._reap()

    async def _guard(self) -> None:
        """Start it again whenever it ends while there are gateways."""
        while True:
            if self._control is not None:
                await self._control.ended.wait()
            async with self._lock:
                if not self._needed():
                    return
            log.warning("the resolver ended, starting it again")
            await asyncio.sleep(self._backoff.next())
            try:
                await self.refresh()
            except (ShoalError, OSError) as error:
                log.error("names of containers do not resolve: %s", error)
            else:
                self._backoff.reset()

    async def _reap(self) -> None:
        if self._child is not None:
            child, self._child = self._child, None
            await asyncio.to_thread(child.wait)

    def _note(self, failed: dict[str, str]) -> None:
        for gateway, why in failed.items():
            if self._failed.get(gateway) != why:
                log.error("cannot answer DNS on %s:53: %s", gateway, why)
        self._failed = failed

    @contextlib.contextmanager
    def _socket_path(self) -> Iterator[str]:
        """A short path of the control socket: sun_path has 108 bytes, and the folder's path may have more."""
        folder = os.open(self._folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield f"/proc/self/fd/{folder}/resolver.sock"
        finally:
            os.close(folder)
