"""A unix socket of another host, brought here by the user's own ssh: keys, agents and ~/.ssh/config apply.

OpenSSH forwards a local socket to the agent's and runs a local command once the forward stands, which is how we
know. What it says on stderr becomes the error.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile

from cli.endpoint import Endpoint
from shoal.errors import Unavailable

_CONNECT_TIMEOUT_S = 15


class Tunnel:
    """A running ssh; `socket` is its end here."""

    def __init__(self, folder: str, process: asyncio.subprocess.Process) -> None:
        self.socket = f"{folder}/shoal.sock"
        self._folder = folder
        self._process = process
        self._lines: list[str] = []
        self._reader = asyncio.create_task(self._listen())

    @classmethod
    async def open(cls, endpoint: Endpoint) -> Tunnel:
        """Raises Unavailable with ssh's own words when it cannot connect."""
        folder = tempfile.mkdtemp(prefix="shoal-")
        try:
            process = await asyncio.create_subprocess_exec(
                *argv(endpoint, f"{folder}/shoal.sock"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,  # a Ctrl-C is for the container, not for its link
            )
        except FileNotFoundError as error:
            shutil.rmtree(folder)
            raise Unavailable("ssh is not installed on this host", hint="install openssh-client") from error
        tunnel = cls(folder, process)
        assert process.stdout is not None
        try:
            if await process.stdout.readline():
                return tunnel
            await process.wait()
            await tunnel._reader
        except BaseException:
            await tunnel.close()
            raise
        said = tunnel.said() or f"ssh ended with code {process.returncode}"
        await tunnel.close()
        raise Unavailable(f"Cannot connect to {endpoint.host}: {said}", hint=f"try 'ssh {_whom(endpoint)}' by hand")

    def said(self) -> str:
        """The last thing that ssh complained about."""
        return self._lines[-1] if self._lines else ""

    async def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        await self._process.wait()
        await self._reader
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _listen(self) -> None:
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            if text := line.decode(errors="replace").strip():
                self._lines.append(text)


def argv(endpoint: Endpoint, local: str) -> list[str]:
    """The ssh command that brings `endpoint.path` to the local socket and prints a line once it has."""
    options = [
        "ExitOnForwardFailure=yes",
        "StreamLocalBindUnlink=yes",
        f"ConnectTimeout={_CONNECT_TIMEOUT_S}",
        "ServerAliveInterval=10",
        "PermitLocalCommand=yes",
        "LocalCommand=echo ready",
    ]
    # Of `shoal machine env`: by that file, ssh knows machines by their names.
    file = os.environ.get("SHOAL_SSH_CONFIG", "")
    out = ["ssh", "-N", "-T", *(["-F", file] if file else [])]
    for option in options:
        out += ["-o", option]
    if endpoint.port:
        out += ["-p", str(endpoint.port)]
    return [*out, "-L", f"{local}:{endpoint.path}", "--", _whom(endpoint)]


def _whom(endpoint: Endpoint) -> str:
    return f"{endpoint.user}@{endpoint.address}" if endpoint.user else endpoint.address
