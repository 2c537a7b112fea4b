"""Recovery: a manager's data are made of what is left: of a backup, of another store, of this host's own.

`manager/recovery.py` does the work, in a process that ends with it, while no manager runs on those data; this gives it
an etcd where the managers run that themselves. `agent/membership.py` says when. Which data are the truth is decided in
one step, by what is written down last: the settings of the manager, or the identity by which this host is a member.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec

from agent.manager import program
from agent.office import Office
from agent.settings import ManagerSettings
from shoal.backup import examined
from shoal.command import run
from shoal.errors import Exhausted, ShoalError
from shoal.files import move
from shoal.model.access import StoreAccess
from shoal.recovery import Secrets
from shoal.settings import MANAGER_PORT, Paths, host_port

_RECOVERING = "The manager of this node is being made the only one of its swarm."
_MIGRATING = "The swarm's state is being moved to another store; nothing can be read or changed meanwhile."


class Recovery:
    """Of the manager that `office` has or will have. What is raised says why the data are good for nothing."""

    def __init__(self, paths: Paths, office: Office) -> None:
        self._paths = paths
        self._office = office

    async def restore(self, chunks: AsyncIterator[bytes], secrets: Secrets, *, settings: ManagerSettings) -> None:
        """The data of a cluster's only manager, of the backup that comes in, and the identity that makes this host its
        node: before that is there, nothing is."""
        address, _ = host_port(settings.advertise, MANAGER_PORT)
        identity = self._paths.manager_data / "identity"
        secrets = msgspec.structs.replace(secrets, store=settings.store)
        async with _received(chunks, self._paths.manager_data / "restore.backup") as file:
            words = ["restore", "--file", str(file), "--node-name", settings.node_name, "--address", address]
            words += ["--availability", settings.availability.name.lower()]
            if settings.store.managed:
                # It begins as soon as the work has made an identity to begin with.
                await self._office.beside_etcd(settings, lambda: self._do(words, secrets, identity), folder=identity)
            else:
                await self._do(words, secrets, identity)
        await asyncio.to_thread(move, identity, self._paths.identity)

    async def become_alone(self, node_id: str, *, settings: ManagerSettings) -> None:
        """Make the manager of this host, from its own data, the only one, and start it by `settings`."""
        async with self._office.paused(_RECOVERING):
            store = settings.store
            if store.managed:
                store = await self._office.start_etcd(settings, alone=True)
            await self._do(["alone", "--node-id", node_id], Secrets(store=store), self._paths.identity)
            await self._office.stop_etcd()
            await self._office.note(msgspec.structs.replace(settings, store=store))

    async def migrate(self, source: StoreAccess, *, settings: ManagerSettings) -> None:
        """Copy what `source` holds into the store of `settings`, and start the manager by these."""
        async with self._office.paused(_MIGRATING):
            store = settings.store
            if store.managed:
                store = await self._office.start_etcd(settings)
            await self._do(["migrate"], Secrets(store=store, source=source), self._paths.identity)
            await self._office.note(msgspec.structs.replace(settings, store=store))

    async def _do(self, words: Sequence[str], secrets: Secrets, identity: Path) -> None:
        argv = [*program(), *words, "--data-dir", str(self._paths.manager_data), "--identity-dir", str(identity)]
        done = await run(argv, stdin=msgspec.json.encode(secrets), check=False)
        (self._paths.data / "manager.log").open("ab").write(done.stderr)
        if done.code:
            lines = done.stderr.decode(errors="replace").strip().splitlines()
            raise ShoalError((lines[-1] if lines else f"it ended with {done.code}").removeprefix("shoal-manager: "))


@contextlib.asynccontextmanager
async def _received(chunks: AsyncIterator[bytes], path: Path) -> AsyncIterator[Path]:
    """The file at `path` until the block ends. Raises InvalidArgument or Unsupported for one that is not whole."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o711)
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
            async for chunk in chunks:
                await asyncio.to_thread(file.write, chunk)
        await asyncio.to_thread(examined, path, "that was sent")
    except OSError as error:
        path.unlink(missing_ok=True)
        kind = Exhausted if error.errno in (28, 122) else ShoalError  # ENOSPC, EDQUOT
        raise kind(f"the backup cannot be written to {path}: {error.strerror}") from error
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
