"""Carriage: files in and out of a container, running or not; its whole root; its own layer.

`porter` does it in a child that is locked inside the container's root; here is which root that is, and how bytes
come to the child and from it. Reading goes on beside whatever the container does. Writing to one that does not run
keeps it from being started meanwhile, since an overlay has one writer.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any

import msgspec

from agent.container import place
from agent.container.held import Held
from agent.container.launch import Launcher
from agent.container.lifecycle import Room
from agent.container.porter import Errand
from agent.image import child as children
from shoal.command import Child
from shoal.errors import Conflict, DeadlineExceeded, Exhausted, InvalidArgument, NotFound, ShoalError
from shoal.model.container import MountType

_CHUNK = 1 << 18
# A client that says nothing for so long does not keep a container from starting any longer.
_PATIENCE_S = 60.0


class PathStat(msgspec.Struct, frozen=True):
    """`mode` as stat(2) has it; `link`: where a link leads in the end, empty for anything else."""

    name: str
    mode: int
    size: int
    mtime_ns: int
    link: str


class Carriage:
    def __init__(self, room: Room, launcher: Launcher) -> None:
        self._room = room
        self._launcher = launcher

    async def stat(self, ref: str, path: str) -> PathStat:
        """Raises NotFound in docker's words."""
        held = self._room.register.find(ref)
        errand = await self._errand(held, "stat", path=_absolute(path))
        with _told(held, path):
            said = b"".join([piece async for piece in _output(errand)])
        return msgspec.json.decode(said, type=PathStat)

    async def read(self, ref: str, path: str, name: str) -> AsyncGenerator[bytes, None]:
        """A tar of what is at `path`, its entries beginning with `name`."""
        held = self._room.register.find(ref)
        errand = await self._errand(held, "read", path=_absolute(path), name=name)
        with _told(held, path):
            async for piece in _output(errand):
                yield piece

    async def write(self, ref: str, path: str, chunks: AsyncIterator[bytes], *, keep_owner: bool) -> None:
        """Take a tar apart below the folder `path`. What a broken one held until then stays."""
        held = self._room.register.find(ref)
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(held.lock)
            held.check_there()
            if not held.alive:
                await asyncio.to_thread(self._launcher.renew, held)
            errand = await self._errand(held, "write", path=_absolute(path), keep_owner=keep_owner)
            if held.alive:
                await stack.aclose()  # it has its root already; nothing is in the way of its end
            with _told(held, path):
                await _input(errand, chunks)

    async def export(self, ref: str) -> AsyncGenerator[bytes, None]:
        """A tar of its root, without volumes, also while it runs."""
        held = self._room.register.find(ref)
        errand = self._beside(held, "read")
        with _told(held, "/"):
            async for piece in _output(errand):
                yield piece

    async def layer(self, ref: str) -> AsyncGenerator[bytes, None]:
        """What it changed of its image, as a gzipped layer."""
        held = self._room.register.find(ref)
        errand = Errand("layer", held.id, upper=self._folder(held, "upper"))
        with _told(held, "/"):
            async for piece in _output(errand):
                yield piece

    async def _errand(self, held: Held, task: str, **fields: Any) -> Errand:
        if held.alive:
            own = bool(held.record.container.first_id)
            return Errand(task, held.id, pid=held.state.status.pid, own_ids=own, **fields)
        container = held.record.container
        # A volume that had to be mounted stays so until the container has run again, or goes.
        sources = await place.sources(container.mounts, self._room.volumes, user=held.id)
        ordered = sorted(zip(container.mounts, sources, strict=True), key=lambda each: each[0].target.count("/"))
        mounts = tuple(
            (source, mount.subpath, mount.target, mount.read_only)
            for mount, source in ordered
            if mount.type != MountType.TMPFS
        )
        errand = self._beside(held, task)._replace(mounts=mounts, read_only=container.spec.read_only, **fields)
        if task == "write":
            return errand._replace(
                layers=errand.layers[1:], upper=self._folder(held, "upper"), work=self._folder(held, "work")
            )
        return errand

    def _beside(self, held: Held, task: str) -> Errand:
        """On a mount of its own that nothing is written through, also while it runs."""
        upper = self._folder(held, "upper")
        mount_point = self._room.records.folder(held.id) / "root"
        mount_point.mkdir(mode=0o700, exist_ok=True)
        layers = (upper, *self._launcher.layers(held.record.container))
        return Errand(task, held.id, layers=layers, mount_point=str(mount_point))

    def _folder(self, held: Held, name: str) -> str:
        return str(self._room.records.folder(held.id) / name)


def _absolute(path: str) -> str:
    """Paths are seen from the container's root, whatever its working directory is."""
    if "\0" in path:
        raise InvalidArgument("the path contains a NUL byte")
    return f"/{path.lstrip('/')}"


async def _start(errand: Errand, *, stdin: bool) -> Child:
    argv = children.argv("agent.container.porter", json.dumps(errand._asdict()))
    return await Child.start(argv, stdin=stdin, stdout=not stdin, environment={})


async def _output(errand: Errand) -> AsyncGenerator[bytes, None]:
    """What the child writes; it ends with whoever stops reading."""
    child = await _start(errand, stdin=False)
    assert child.stdout is not None
    try:
        while piece := await child.stdout.read(_CHUNK):
            yield piece
        await _ended(child)
    finally:
        await _reaped(child)


async def _input(errand: Errand, chunks: AsyncIterator[bytes]) -> None:
    child = await _start(errand, stdin=True)
    assert child.stdin is not None
    try:
        # A child that refuses the archive stops reading; what it says then counts, not the broken pipe.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while (chunk := await _next(chunks)) is not None:
                child.stdin.write(chunk)
                await child.stdin.drain()
            child.stdin.close()
        await _ended(child)
    finally:
        await _reaped(child)


async def _next(chunks: AsyncIterator[bytes]) -> bytes | None:
    try:
        async with asyncio.timeout(_PATIENCE_S):
            return await anext(chunks, None)
    except TimeoutError as error:
        raise DeadlineExceeded(f"nothing came for {_PATIENCE_S:.0f} s: the copy is broken off") from error


async def _ended(child: Child) -> None:
    """Raises _Failed for what the child complains of."""
    complaint = await child.stderr.read(_CHUNK)
    code = await child.wait()
    if code == 0:
        return
    try:
        said = json.loads(complaint)
    except ValueError as error:
        last = complaint.decode(errors="replace").strip().rpartition("\n")[2]
        raise ShoalError(f"the copying process ended with code {code}: {last or 'no message'}") from error
    raise _Failed(said["error"], said["kind"], said["errno"])


async def _reaped(child: Child) -> None:
    if not child.ended:
        child.kill()
        await child.wait()


class _Failed(Exception):
    def __init__(self, message: str, kind: str, number: int) -> None:
        super().__init__(message)
        self.message = message
        self.kind = kind
        self.errno = number


@contextlib.contextmanager
def _told(held: Held, path: str) -> Iterator[None]:
    """The child's complaint in docker's words."""
    try:
        yield
    except _Failed as error:
        if error.kind == "missing":
            raise NotFound(f"Could not find the file {path} in container {held.name}") from error
        if error.errno == errno.EROFS:
            raise Conflict(f"cannot copy to {path} of container {held.name}: it is marked read-only") from error
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Exhausted(
                f"cannot copy to container {held.name}: no space left on device", hint="free some space on its disk"
            ) from error
        kind = InvalidArgument if error.kind == "refused" else ShoalError
        raise kind(f"container {held.name}: {error.message}") from error
