"""`--ssh`: the user's SSH agents, lent to the commands of a build for as long as it runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path

from shoal.errors import InvalidArgument, NotFound, Unsupported

_CHUNK = 1 << 16
Send = Callable[[int, bytes], Awaitable[None]]


def agents(texts: Iterable[str], own: Mapping[str, str]) -> dict[str, str]:
    """`default`, or `id=/path/of/a/socket`: the socket of each id. Raises Unsupported for a key: we hold none."""
    found = {}
    for text in texts:
        name, equals, path = text.partition("=")
        path = path if equals else own.get("SSH_AUTH_SOCK", "")
        if not name:
            raise InvalidArgument(f"invalid --ssh {text!r}", hint="write default, or id=/path/of/a/socket")
        if not path:
            raise NotFound("there is no SSH agent: SSH_AUTH_SOCK is not set", hint="start one: eval $(ssh-agent)")
        if Path(path).is_file():
            raise Unsupported(f"--ssh with a key ({path}) is not supported", hint=f"ssh-add {path}, and --ssh {name}")
        if not Path(path).is_socket():
            raise NotFound(f"--ssh {text}: there is no socket {path}")
        found[name] = path
    return found


class Lender:
    """Connections of commands to agents, by number. `send` carries what an agent says."""

    def __init__(self, paths: Mapping[str, str], send: Send) -> None:
        self._paths = paths
        self._send = send
        self._writers: dict[int, asyncio.StreamWriter] = {}
        self._reading: set[asyncio.Task[None]] = set()

    async def open(self, number: int, name: str) -> None:
        """An agent that is gone is told as one that hangs up."""
        try:
            reader, writer = await asyncio.open_unix_connection(self._paths[name])
        except (OSError, KeyError):
            await self._send(number, b"")
            return
        self._writers[number] = writer
        task = asyncio.create_task(self._read(number, reader))
        self._reading.add(task)
        task.add_done_callback(self._reading.discard)

    async def take(self, number: int, data: bytes) -> None:
        """What a command says; nothing means that it hung up."""
        writer = self._writers.get(number)
        if writer is None:
            return
        if not data:
            del self._writers[number]
            writer.close()
            return
        with contextlib.suppress(ConnectionError):
            writer.write(data)
            await writer.drain()

    async def close(self) -> None:
        for writer in self._writers.values():
            writer.close()
        for task in self._reading:
            task.cancel()
        await asyncio.gather(*self._reading, return_exceptions=True)

    async def _read(self, number: int, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(_CHUNK):
                await self._send(number, data)
        await self._send(number, b"")
