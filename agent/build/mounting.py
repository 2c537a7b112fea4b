"""What `--mount` puts into the container of a RUN: binds, caches, secrets, tmpfs, the user's SSH agent.

What a bind shows is a copy, made for the step and gone with it: so the command may write to it, and nobody sees it.
Secrets are files in memory, for as long as the command runs.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import posixpath
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec

from agent.build import cachekey, flags, transfer
from agent.build.flags import MountKind, Sharing
from agent.build.forward import forwarded
from agent.build.job import Job, Solved, Tools
from agent.build.tree import content_digest
from agent.image.layer import Place
from shoal.errors import InvalidArgument, NotFound
from shoal.ids import new_id
from shoal.model.container import Mount, MountType

LayersOf = Callable[[str, int], Awaitable[Solved]]
_SECRETS = "/run/secrets"
SCRIPT = "/dev/pipes/script"


class Mounting:
    """`layers_of` tells what `from=` means."""

    def __init__(self, job: Job, tools: Tools, layers_of: LayersOf) -> None:
        self._job = job
        self._tools = tools
        self._layers_of = layers_of

    @asynccontextmanager
    async def mounted(
        self, wanted: Sequence[flags.Mount], script: str, place: Place, stage: int
    ) -> AsyncIterator[tuple[tuple[Mount, ...], dict[str, str]]]:
        """The mounts of one command, and the secrets among its variables. `script` is the text of a program that is
        to be found at `SCRIPT`."""
        async with AsyncExitStack() as stack:
            folder = self._tools.secret / new_id()
            await asyncio.to_thread(folder.mkdir, mode=0o700, parents=True)
            stack.push_async_callback(asyncio.to_thread, shutil.rmtree, folder)
            mounts: list[Mount] = []
            variables: dict[str, str] = {}
            if script:
                path = folder / "script"
                path.write_text(script, encoding="utf-8", errors="surrogateescape")
                path.chmod(0o755)
                mounts.append(_bind(path, SCRIPT, read_only=True))
            for number, each in enumerate(wanted):
                if each.kind == MountKind.SECRET:
                    mounts += self._secret(each, folder / str(number), variables)
                elif each.kind == MountKind.CACHE:
                    mounts.append(await self._cache(each, stage, stack))
                elif each.kind == MountKind.TMPFS:
                    mounts.append(Mount(type=MountType.TMPFS, target=each.target, tmpfs_size_bytes=each.size_bytes))
                elif each.kind == MountKind.BIND:
                    mounts.append(await self._shown(each, place.upper.parent / f"shown-{number}", stage))
                else:
                    mounts += await self._ssh(each, folder / str(number), number, variables, stack)
            yield tuple(mounts), variables

    def _secret(self, wanted: flags.Mount, path: Path, variables: dict[str, str]) -> list[Mount]:
        name = wanted.id or wanted.source or posixpath.basename(wanted.target)
        value = self._job.secrets.get(name)
        if value is None:
            if wanted.required:
                raise NotFound(f"secret {name}: not found", hint=f"give it with --secret id={name},src=FILE")
            return []
        if wanted.env:
            variables[wanted.env] = value.decode(errors="surrogateescape")
            if not wanted.target:
                return []
        path.write_bytes(value)
        os.chown(path, wanted.uid, wanted.gid)
        path.chmod(0o400 if wanted.mode is None else wanted.mode)
        return [_bind(path, wanted.target or f"{_SECRETS}/{name}", read_only=True)]

    async def _ssh(
        self, wanted: flags.Mount, path: Path, number: int, variables: dict[str, str], stack: AsyncExitStack
    ) -> list[Mount]:
        name = wanted.id or "default"
        open_line = self._job.ssh.get(name)
        if open_line is None:
            if wanted.required:
                raise NotFound(f"SSH agent {name}: not found", hint=f"give it with --ssh {name}")
            return []
        mode = 0o600 if wanted.mode is None else wanted.mode
        await stack.enter_async_context(forwarded(path, open_line, mode=mode, owner=(wanted.uid, wanted.gid)))
        target = wanted.target or f"/run/shoal/ssh-agent.{number}"
        variables.setdefault("SSH_AUTH_SOCK", target)
        return [_bind(path, target, read_only=False)]

    async def _cache(self, wanted: flags.Mount, stage: int, stack: AsyncExitStack) -> Mount:
        """A folder that outlives the build. `locked`: one command at a time has it; `private`: who comes while another
        has it gets one of its own."""
        name = hashlib.sha256((wanted.id or wanted.target).encode()).hexdigest()[:32]
        if wanted.sharing == Sharing.LOCKED:
            await stack.enter_async_context(self._tools.cache.alone(f"mount {name}"))
        elif wanted.sharing == Sharing.PRIVATE:
            name = await self._private(name, stack)
        folder = stack.enter_context(self._tools.mounts.using(name, wanted.target))
        if not folder.exists():
            await self._begin(wanted, name, stage)
        return _bind(folder, wanted.target, read_only=wanted.read_only)

    async def _private(self, name: str, stack: AsyncExitStack) -> str:
        """The first of its folders that nobody has just now."""
        number = 0
        while self._tools.cache.taken(f"mount {name} {number}"):
            number += 1
        await stack.enter_async_context(self._tools.cache.alone(f"mount {name} {number}"))
        return f"{name}-{number}" if number else name

    async def _begin(self, wanted: flags.Mount, name: str, stage: int) -> None:
        """A cache begins empty, or as what `from` and `source` say."""
        with self._tools.mounts.begin(name) as fresh:
            if wanted.origin:
                origin = await self._layers_of(wanted.origin, stage)
                await self._copied(origin, wanted.source or "/", fresh)
            os.chown(fresh, wanted.uid, wanted.gid)
            fresh.chmod(0o755 if wanted.mode is None else wanted.mode)

    async def _shown(self, wanted: flags.Mount, folder: Path, stage: int) -> Mount:
        await asyncio.to_thread(folder.mkdir)
        source = wanted.source or "/"
        if wanted.origin:
            origin = await self._layers_of(wanted.origin, stage)
            await self._copied(origin, source, folder)
            found = None
        else:
            found = self._job.tree.sources(source)
            async with self._tools.images.fresh.placing(()) as aside:
                bare = msgspec.structs.replace(aside, upper=folder)
                order = transfer.order_of(bare, "/", several=True, files=str(self._tools.contexts.files))
                await asyncio.to_thread(transfer.place_files, order, found)
        name = posixpath.basename(posixpath.normpath(source))
        alone = _is_lone_file(folder, name) if found is None else not found[0].folder
        return _bind(folder / name if alone else folder, wanted.target, read_only=wanted.read_only)

    async def _copied(self, origin: Solved, source: str, folder: Path) -> None:
        async with self._tools.images.fresh.placing(()) as aside:
            folders = self._tools.images.fresh.folders(origin.below) or (str(aside.upper),)
            wish = transfer.wish_of(folders, str(aside.mount), (source,))
            order = transfer.order_of(msgspec.structs.replace(aside, upper=folder), "/", several=True)
            await asyncio.to_thread(transfer.place_gathered, order, wish)


async def shown_digest(mount: flags.Mount, job: Job, tools: Tools, layers_of: LayersOf, stage: int) -> str:
    """What of a mount's content is part of a step's key. Raises NotFound for a bind of nothing."""
    if mount.kind != MountKind.BIND:
        return ""
    source = mount.source or "/"
    if not mount.origin:
        return content_digest(job.tree.sources(source))
    origin = await layers_of(mount.origin, stage)
    memo = cachekey.key_of("gather", origin.below, (source,), (), False)
    found = tools.cache.digests.get(memo)
    if found is None:
        async with tools.images.fresh.placing(()) as aside:
            folders = tools.images.fresh.folders(origin.below) or (str(aside.upper),)
            wish = transfer.wish_of(folders, str(aside.mount), (source,))
            found = await asyncio.to_thread(transfer.gathered_digest, wish)
        tools.cache.remember(memo, found)
    return found


def _is_lone_file(folder: Path, name: str) -> bool:
    """Whether a file was copied, and not a folder with one file of that name in it."""
    return [each.name for each in folder.iterdir()] == [name] and (folder / name).is_file()


def _bind(source: Path, target: str, *, read_only: bool) -> Mount:
    if not target.startswith("/"):
        raise InvalidArgument(f"the target of a mount is an absolute path, not {target[:200]!r}")
    return Mount(type=MountType.BIND, source=str(source), target=posixpath.normpath(target), read_only=read_only)
